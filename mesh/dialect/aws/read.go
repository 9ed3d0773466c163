package aws

import (
	"cmp"
	"fmt"
	"slices"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// kind is one of the API's resources.
type kind struct {
	mesh.Kind
	member, plural string // what an answer calls one of it, and several
	name, parent   string // the members that have its name and that of what it is in, beside the mesh
}

// kinds are those that are named by more before those that are named by less.
var kinds = []kind{
	{mesh.KindGatewayRoute, "gatewayRoute", "gatewayRoutes", "gatewayRouteName", "virtualGatewayName"},
	{dialect.KindRoute, "route", "routes", "routeName", "virtualRouterName"},
	{mesh.KindVirtualNode, "virtualNode", "virtualNodes", "virtualNodeName", ""},
	{mesh.KindVirtualService, "virtualService", "virtualServices", "virtualServiceName", ""},
	{mesh.KindVirtualRouter, "virtualRouter", "virtualRouters", "virtualRouterName", ""},
	{mesh.KindVirtualGateway, "virtualGateway", "virtualGateways", "virtualGatewayName", ""},
	{mesh.KindMesh, "mesh", "meshes", "meshName", ""},
}

// besides are the members that stand beside spec and names, and what becomes of them.
var besides = map[string]string{
	"clientToken":      "it belonged to one call",
	"metadata":         "it is App Mesh's own",
	"status":           "it is App Mesh's own",
	"meshOwner":        "there are no AWS accounts here",
	"tags":             "there are no AWS tags here",
	"arn":              "it is App Mesh's own",
	"ResponseMetadata": "it belonged to one call",
	"nextToken":        "it belonged to one call",
}

// Read implements [dialect.Reader].
func Read(d *dialect.Drafts, f dialect.File) {
	d.File(f.Name)
	roots, errs := manifest.Form{Unfilled: f.Unfilled}.Read(f.Name, f.Content)
	d.Wrong(errs)
	r := reader{d}
	for _, n := range roots {
		r.value("", n)
	}
}

type reader struct{ drafts *dialect.Drafts }

// value is an object, an answer that has one or several, or a list of these.
func (r reader) value(path string, n manifest.Node) {
	switch n.Is() {
	case manifest.List:
		for i, item := range n.Items() {
			r.value(fmt.Sprintf("%s[%d]", path, i), item)
		}
	case manifest.Mapping:
		r.mapping(path, n)
	case manifest.Null, manifest.Broken:
	default:
		r.drafts.Note("", dialect.Refused, n, path, "is not an object of App Mesh")
	}
}

func (r reader) mapping(path string, n manifest.Node) {
	for _, k := range kinds {
		if inner := n.Get(k.member); inner.Is() == manifest.Mapping && (inner.Get("spec").Is() != manifest.Null || inner.Get("metadata").Is() != manifest.Null) {
			r.object(below(path, k.member), inner, &k)
			r.others(path, n, []string{k.member})
			return
		}
		if inner := n.Get(k.plural); inner.Is() == manifest.List {
			r.list(below(path, k.plural), inner, &k)
			r.others(path, n, []string{k.plural})
			return
		}
	}
	r.object(path, n, nil)
}

// list is what list-… answers, which has no specs, or several objects of one kind.
func (r reader) list(path string, n manifest.Node, k *kind) {
	for i, item := range n.Items() {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item.Is() != manifest.Mapping {
			r.value(at, item)
			continue
		}
		if item.Get("spec").Is() == manifest.Null {
			r.drafts.Note(string(k.Kind)+" "+item.Get(k.name).Text(), dialect.Missing, item, at, "the answer to list-… has no spec: save that to describe-… of each object")
			r.drafts.AddIncomplete(dialect.ObjectAt(item, at, string(k.Kind), item.Get(k.name).Text()))
			continue
		}
		r.object(at, item, k)
	}
}

// object is the input of create-… or update-…, or only the spec in it.
func (r reader) object(path string, n manifest.Node, k *kind) {
	spec, specPath := n.Get("spec"), below(path, "spec")
	whole := k != nil || spec.Is() != manifest.Null || slices.ContainsFunc(kinds, func(k kind) bool { return n.Get(k.name).Is() != manifest.Null })
	if !whole {
		spec, specPath = n, path
	}
	if k == nil {
		k = r.tell(n, spec, whole)
	}
	if k == nil {
		r.drafts.Note("", dialect.Missing, n, path, "cannot be told to be of a kind: nothing names it, and its spec may be that of several; say it by --kind KIND")
		r.drafts.AddIncomplete(dialect.ObjectAt(n, path, "object", ""))
		return
	}
	x := dialect.Draft{Kind: k.Kind, Spelling: dialect.AWS, At: n, Spec: manifest.Member{Written: specPath, Value: spec}}
	known := []string{"spec", k.name, "meshName", k.parent}
	if whole {
		x.Name = manifest.Member{Written: below(path, k.name), Value: n.Get(k.name)}
		x.Mesh = manifest.Member{Written: below(path, "meshName"), Value: n.Get("meshName")}
		if k.parent != "" {
			x.Parent = manifest.Member{Written: below(path, k.parent), Value: n.Get(k.parent)}
		}
		r.others(path, n, known)
	}
	r.drafts.Add(x)
}

// others are members that have no meaning here.
func (r reader) others(path string, n manifest.Node, known []string) {
	for _, m := range n.Members() {
		if slices.Contains(known, m.Name) {
			continue
		}
		why := besides[m.Name]
		if why == "" {
			why = "App Mesh's model has no such field"
		}
		r.drafts.Note("", dialect.Dropped, m.Key(), below(path, m.Name), why)
	}
}

// tell returns the kind of an object; nil where that cannot be told. A name may stand in
// the command and not in its file, so that the router's may be that of a route.
func (r reader) tell(n, spec manifest.Node, whole bool) *kind {
	bySpec := kindOfSpec(spec)
	for i, k := range kinds {
		if !whole || n.Get(k.name).Is() == manifest.Null {
			continue
		}
		mayBeOf := func(of kind) bool { return of.Kind == bySpec && (of.parent == k.name || k.Kind == mesh.KindMesh) }
		empty := k.Kind == mesh.KindMesh && bySpec == "" && len(spec.Members()) > 0
		if !empty && !slices.ContainsFunc(kinds, mayBeOf) {
			return &kinds[i]
		}
	}
	of := cmp.Or(bySpec, r.drafts.Options.Kind)
	for i := range kinds {
		if kinds[i].Kind == of {
			return &kinds[i]
		}
	}
	return nil
}

// kindOfSpec is the kind whose spec has the members, "" where several can have.
func kindOfSpec(spec manifest.Node) mesh.Kind {
	has := func(n manifest.Node, name string) bool { return n.Get(name).Is() != manifest.Null }
	for _, form := range []string{"grpcRoute", "httpRoute", "http2Route", "tcpRoute"} {
		switch action := spec.Get(form).Get("action"); {
		case has(action, "target"):
			return mesh.KindGatewayRoute
		case has(action, "weightedTargets"), form == "tcpRoute" && has(spec, form):
			return dialect.KindRoute
		}
	}
	discovery := spec.Get("serviceDiscovery")
	switch {
	case has(spec, "provider"):
		return mesh.KindVirtualService
	case has(spec, "backends"), has(discovery, "dns"), has(discovery, "awsCloudMap"):
		return mesh.KindVirtualNode
	case has(spec, "egressFilter"), has(spec, "serviceDiscovery") && len(spec.Members()) == 1:
		return mesh.KindMesh
	}
	return kindOfListeners(spec)
}

// kindOfListeners: App Mesh wants service discovery of a virtual node with listeners, so
// that one without is a gateway's, or a router's if it has ports only.
func kindOfListeners(spec manifest.Node) mesh.Kind {
	listeners := spec.Get("listeners").Items()
	if len(listeners) == 0 {
		if spec.Get("logging").Is() != manifest.Null || spec.Get("backendDefaults").Is() != manifest.Null {
			return mesh.KindVirtualNode // a gateway needs listeners
		}
		return ""
	}
	if spec.Get("logging").Is() != manifest.Null || spec.Get("backendDefaults").Is() != manifest.Null {
		return mesh.KindVirtualGateway
	}
	for _, l := range listeners {
		for _, name := range []string{"timeout", "outlierDetection"} {
			if l.Get(name).Is() != manifest.Null {
				return mesh.KindVirtualNode
			}
		}
		for _, name := range []string{"tls", "healthCheck", "connectionPool"} {
			if l.Get(name).Is() != manifest.Null {
				return mesh.KindVirtualGateway
			}
		}
	}
	return ""
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
