package mesh

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
)

// reservedMesh is Signet's own path in the trust domain: the agents' and
// servers' IDs live under it (D6).
const reservedMesh = "signet"

// Parse decodes an App Mesh object strictly, checks every constraint that
// needs no other object, and fills in the defaults that App Mesh shows.
// Defaults that it does not show (timeouts, retries) are the Graph's.
func Parse(d *manifest.Document) (*Resource, error) {
	r, unknown, wrong := parse(d)
	if wrong = unknown.With(wrong); len(wrong) == 0 {
		return r, nil
	}
	if r != nil {
		wrong = wrong.With(Unsupported(r))
	}
	return nil, wrong
}

// ParseLoosely is Parse for what Kubernetes took: a field that the kind does not have is
// dropped, as it was there, and returned.
func ParseLoosely(d *manifest.Document) (r *Resource, dropped manifest.Errors, err error) {
	r, unknown, wrong := parse(d)
	var rest manifest.Errors
	for _, e := range append(wrong, unknown...) {
		if e.Unknown {
			dropped = append(dropped, e)
		} else {
			rest = append(rest, e)
		}
	}
	rest.Sort()
	return r, dropped, rest.OrNil()
}

// beforeOne is the version of the controller's first releases.
const beforeOne = "appmesh.k8s.aws/v1beta1"

// parse returns no resource where it could not be read; then all that is wrong is in
// wrong. Else unknown are the fields that the kind does not have.
func parse(d *manifest.Document) (r *Resource, unknown, wrong manifest.Errors) {
	if of := infoOf(Kind(d.Kind)); d.Foreign() || d.APIVersion == SignetGroupVersion && (of == nil || of.Group != d.APIVersion) {
		return nil, nil, manifest.Errors{d.FieldError("apiVersion", fmt.Sprintf("%q is not %s", d.APIVersion, GroupVersion))}
	}
	if d.APIVersion == beforeOne { // what else is wrong with it is that it is another form
		return nil, nil, manifest.Errors{d.FieldError("apiVersion", fmt.Sprintf("%s is of App Mesh's controller before 1.0, whose specs have another form (routes in the VirtualService, backends by name): bring it to %s as that controller's guide has it, or give signet import appmesh what App Mesh has of it, as aws appmesh describe-… answers", beforeOne, GroupVersion))}
	}
	r = &Resource{
		Kind: Kind(d.Kind), ObjectName: d.Name, Namespace: d.Namespace,
		Labels: d.Labels, Annotations: d.Annotations, Spec: newSpec(Kind(d.Kind)), Doc: d,
	}
	if r.Kind.Wide() {
		r.Namespace = "" // as Kubernetes does for what is cluster-wide; Warnings says so
	}
	if r.Spec == nil || d.APIVersion == GroupVersion && infoOf(r.Kind).Group != GroupVersion {
		return nil, nil, manifest.Errors{d.FieldError("kind", fmt.Sprintf("%q is not one of App Mesh's kinds: %s%s", d.Kind, strings.Join(kindNames(), ", "), meantKind(d.Kind)))}
	}
	unknown = manifest.AsErrors(d.Decode(r.Spec))
	if slices.ContainsFunc(unknown, func(e *manifest.Error) bool { return !e.Unknown }) {
		return nil, nil, unknown // fields are not held against others that could not be read
	}
	rules := &ruler{doc: d}
	rules.resource(r)
	r.applyDefaults()
	return r, unknown, rules.errs
}

func (ru *ruler) resource(r *Resource) {
	ru.names(r)
	ru.annotations(r)
	r.Spec.(spec).check(ru)
}

func newSpec(of Kind) any {
	if k := infoOf(of); k != nil {
		return k.spec()
	}
	return nil
}

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k.Kind))
	}
	return names
}

// meantKind asks for the kind that was probably meant; "" where that is none.
func meantKind(name string) string {
	if near := manifest.Nearest(name, kindNames()); near != "" {
		return DidYouMean("", near)
	}
	return ""
}

// names is where the App Mesh name and the mesh of the object stand.
func (r *Resource) names() (awsName *string, ref *MeshRef) {
	awsName, at := r.Spec.(spec).names()
	if at != nil {
		ref = *at
	}
	return awsName, ref
}

func (r *Resource) applyDefaults() {
	awsName, ref := r.names()
	r.Name = r.defaultName()
	if awsName != nil {
		if *awsName == "" {
			*awsName = r.Name
		}
		r.Name = *awsName
	}
	switch {
	case r.Kind.Wide():
		r.Mesh = r.Name // of options until AssignMeshes has found theirs
	case ref != nil:
		r.Mesh = ref.Name
	}
	if s, ok := r.Spec.(interface{ applyDefaults() }); ok {
		s.applyDefaults()
	}
}

func (r *Resource) defaultName() string { return DefaultName(r.Kind, r.Namespace, r.ObjectName) }

// DefaultName is what the controller's webhook writes into spec.awsName
// (AM-names; also each CRD's description of awsName).
//
// Deviates: without a namespace, which Kubernetes always has, it is the plain
// name, so that a mesh outside Kubernetes needs neither.
func DefaultName(k Kind, namespace, name string) string {
	switch {
	case namespace == "" || k.Wide():
		return name
	case k == KindVirtualService:
		return name + "." + namespace
	default:
		return name + "_" + namespace
	}
}

// segmentNames are the kinds whose App Mesh name becomes part of SPIFFE IDs and
// of Envoy's node id "mesh/<mesh>/virtualNode/<node>", so that it must be one
// path segment (SPIFFE-ID 2.2). Deviates: the API allows any 255 characters.
var segmentNames = []Kind{KindMesh, KindVirtualNode, KindVirtualRouter, KindVirtualGateway, KindGatewayRoute}

func (ru *ruler) names(r *Resource) {
	awsName, _ := r.names()
	name, at := r.defaultName(), "metadata.name"
	if awsName != nil && *awsName != "" {
		name, at = *awsName, "spec.awsName"
	}
	if slices.Contains(segmentNames, r.Kind) {
		if p := manifest.CheckText("segment", name); p != "" {
			ru.fail(at, "%s", p)
		}
	}
	if r.Kind == KindMesh && name == reservedMesh {
		ru.fail(at, "a mesh may not be named %q: agents' and servers' identities live under that path", reservedMesh)
	}
	if r.Kind == KindVirtualService && at == "metadata.name" {
		if p := manifest.CheckText("host", name); p != "" {
			ru.fail(at, "%s; set spec.awsName", p)
		}
	}
}
