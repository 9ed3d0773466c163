package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
)

// The API groups whose manifests Signet takes.
const (
	GroupVersion       = "appmesh.k8s.aws/v1beta2"
	SignetGroupVersion = "signet.example/v1alpha1"
)

// Kind is one of App Mesh's seven, or of Signet's own about them.
type Kind string

// App Mesh's kinds.
const (
	KindMesh           Kind = "Mesh"
	KindVirtualNode    Kind = "VirtualNode"
	KindVirtualService Kind = "VirtualService"
	KindVirtualRouter  Kind = "VirtualRouter"
	KindVirtualGateway Kind = "VirtualGateway"
	KindGatewayRoute   Kind = "GatewayRoute"
	KindBackendGroup   Kind = "BackendGroup"
)

// Signet's own, about App Mesh's (docs/decisions/060, 075, 080).
const (
	KindMeshOptions        Kind = "MeshOptions"
	KindVirtualNodeOptions Kind = "VirtualNodeOptions"
	KindGatewayOptions     Kind = "VirtualGatewayOptions"
)

// about is the kind of which options of this kind are; "" for any other.
func (k Kind) about() Kind {
	switch k {
	case KindVirtualNodeOptions:
		return KindVirtualNode
	case KindGatewayOptions:
		return KindVirtualGateway
	}
	return ""
}

// KindInfo is a kind with the other names by which it is asked for, in lower case:
// the CRD's plural, and one of two letters, "" for none.
type KindInfo struct {
	Kind
	Plural, Short string
	// Group is the API version of its manifests.
	Group string

	spec func() spec // an empty one
}

// kinds are App Mesh's, referents before what refers to them.
var kinds = []KindInfo{
	{KindMesh, "meshes", "", GroupVersion, func() spec { return &MeshSpec{} }},
	{KindVirtualNode, "virtualnodes", "vn", GroupVersion, func() spec { return &VirtualNodeSpec{} }},
	{KindVirtualRouter, "virtualrouters", "vr", GroupVersion, func() spec { return &VirtualRouterSpec{} }},
	{KindVirtualService, "virtualservices", "vs", GroupVersion, func() spec { return &VirtualServiceSpec{} }},
	{KindVirtualGateway, "virtualgateways", "vg", GroupVersion, func() spec { return &VirtualGatewaySpec{} }},
	{KindGatewayRoute, "gatewayroutes", "gr", GroupVersion, func() spec { return &GatewayRouteSpec{} }},
	{KindBackendGroup, "backendgroups", "bg", GroupVersion, func() spec { return &BackendGroupSpec{} }},
}

// own are Signet's kinds about App Mesh's.
var own = []KindInfo{
	{KindMeshOptions, "meshoptions", "mo", SignetGroupVersion, func() spec { return &MeshOptionsSpec{} }},
	{KindVirtualNodeOptions, "virtualnodeoptions", "vno", SignetGroupVersion, func() spec { return &VirtualNodeOptionsSpec{} }},
	{KindGatewayOptions, "virtualgatewayoptions", "vgo", SignetGroupVersion, func() spec { return &VirtualGatewayOptionsSpec{} }},
}

// spec is what the spec of each kind says of itself, in its kind's file. It may have
// applyDefaults, too.
type spec interface {
	// names is where App Mesh's name of the object stands, and where the mesh that it
	// names; nil for a kind that has none.
	names() (awsName *string, ref **MeshRef)
	// check finds what one field's rule cannot say.
	check(*ruler)
	// lacks finds what this version does not translate.
	lacks(*lacking)
	// sameToOthers reports whether what refers to an object sees no difference to another spec
	// of it.
	sameToOthers(old any) bool
}

// Kinds lists App Mesh's kinds, referents before what refers to them.
func Kinds() []KindInfo { return slices.Clone(kinds) }

// AllKinds lists App Mesh's kinds, and then Signet's own about them.
func AllKinds() []KindInfo { return slices.Concat(kinds, own) }

// ReferentsFirst orders objects of each mesh so that what is referred to stands before what
// refers to it.
func ReferentsFirst(a, b *Resource) int {
	rank := func(k Kind) int {
		return slices.IndexFunc(kinds, func(i KindInfo) bool { return i.Kind == k })
	}
	return cmp.Or(strings.Compare(a.Mesh, b.Mesh), rank(a.Kind)-rank(b.Kind), strings.Compare(a.Name, b.Name))
}

// infoOf is the kind of a name, nil where there is none.
func infoOf(k Kind) *KindInfo {
	for _, list := range [][]KindInfo{kinds, own} {
		if i := slices.IndexFunc(list, func(info KindInfo) bool { return info.Kind == k }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// Resource is one App Mesh object that satisfies every constraint that can be
// checked without the others.
type Resource struct {
	Kind Kind
	// Mesh is the mesh's App Mesh name. From Parse it is spec.meshRef.name or
	// "", for kind Mesh its own; AssignMeshes completes it.
	Mesh string
	// Name is App Mesh's: spec.awsName after its default.
	Name string
	// ObjectName and Namespace are Kubernetes' metadata, by which references go.
	ObjectName string
	Namespace  string
	// Labels and Annotations are carried; only [proxy.UnsafeAnnotation] is read.
	Labels      map[string]string
	Annotations map[string]string
	// Spec is *MeshSpec, *VirtualNodeSpec, … by Kind.
	Spec any
	// Doc is where it was written; nil for one made otherwise.
	Doc *manifest.Document
}

// SameObject reports whether both are the same object to Kubernetes, whatever
// App Mesh name they have.
func (r *Resource) SameObject(o *Resource) bool {
	return r.Kind == o.Kind && r.Namespace == o.Namespace && r.ObjectName == o.ObjectName
}

// MissingError is the cause of a mistake about what an object refers to, or belongs to, and
// that is not there.
type MissingError struct {
	Kind Kind
	// ObjectName is its metadata.name, AppMeshName that of App Mesh: a reference has one of
	// the two, or neither where any object of the kind would do.
	ObjectName, AppMeshName string
}

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s %s%s does not exist", e.Kind, e.ObjectName, e.AppMeshName)
}

// Wide reports whether an object of the kind is a part of every other one of its mesh.
func (k Kind) Wide() bool { return k == KindMesh || k == KindMeshOptions }
