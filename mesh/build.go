package mesh

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/internal/ordered"
	"signet.example/proxy"
)

// NewGraph resolves every reference between resources. Each must have a mesh
// among them; a reference that leads nowhere is reported with both its ends.
// What Unsupported names is refused here too, so that nothing can be left out
// of what is served without anybody noticing.
func NewGraph(resources []*Resource) (*Graph, error) {
	own := copies(resources)
	if err := AssignMeshes(own); err != nil {
		return nil, err
	}
	b := &builder{graph: &Graph{}, found: map[Name][]Name{}}
	b.build(own)
	if err := b.errs.OrNil(); err != nil {
		return nil, err
	}
	b.forgetPlaces(own)
	return b.graph, nil
}

// copies are for AssignMeshes, which changes what it is given.
func copies(resources []*Resource) []*Resource {
	own := make([]*Resource, len(resources))
	for i, r := range resources {
		c := *r
		own[i] = &c
	}
	return own
}

// builder makes a graph, from nothing or from another one. Its graph is its own
// until it is done; the maps in it are anyone's.
type builder struct {
	graph *Graph
	errs  manifest.Errors
	found map[Name][]Name // what the objects that are being resolved refer to
}

// build adds resources that are not in the graph yet.
func (b *builder) build(rs []*Resource) {
	for _, r := range rs {
		b.errs = append(b.errs, Unsupported(r)...)
		b.index(r)
	}
	b.resolve(rs)
}

// resolve makes the objects of resources that are indexed. Referents come first, so
// that each step finds what it points at.
func (b *builder) resolve(rs []*Resource) {
	b.each(rs, KindVirtualNode, b.node)
	b.each(rs, KindVirtualRouter, b.router)
	b.each(rs, KindVirtualService, b.service)
	b.each(rs, KindVirtualNodeOptions, b.options)
	b.each(rs, KindGatewayOptions, b.options)
	b.each(rs, KindBackendGroup, b.group)
	b.each(rs, KindVirtualNode, b.backends)
	b.each(rs, KindGatewayRoute, b.gatewayRoute)
	b.each(rs, KindVirtualGateway, b.gateway)
	for from, to := range b.found {
		b.graph.refers = b.graph.refers.With(from, &refers{to})
	}
	clear(b.found)
}

// forgetPlaces lets go of the files in which resources were written, which are
// needed for messages only.
func (b *builder) forgetPlaces(rs []*Resource) {
	for _, r := range rs {
		r.Doc = nil
	}
}

func (b *builder) each(rs []*Resource, k Kind, do func(*Resource)) {
	for _, r := range rs {
		if r.Kind == k {
			do(r)
		}
	}
}

func (b *builder) fail(r *Resource, path, format string, args ...any) {
	b.add(r, r.fieldError(path, fmt.Sprintf(format, args...)))
}

func (b *builder) dangling(r *Resource, path string, missing MissingError, to, where string) {
	e := r.Doc.DanglingError(path, fmt.Sprintf("%s refers to %s", r, to), where)
	e.Cause = &missing
	b.add(r, e)
}

func (b *builder) add(r *Resource, e *manifest.Error) {
	e.Object = r.String()
	b.errs = append(b.errs, e)
}

func (r *Resource) objectKey() objectKey {
	k := objectKey{r.Kind, r.Mesh, r.Namespace, r.ObjectName}
	if r.Kind == KindMesh {
		k.mesh = "" // a mesh is in none
	}
	return k
}

func (r *Resource) graphName() Name { return NameOf(r.Kind, r.Mesh, r.Name) }

// ref is for a virtual node or gateway.
func (r *Resource) ref() proxy.Ref { return proxy.For(r.Mesh, r.Name, r.Kind == KindVirtualGateway) }

func (b *builder) index(r *Resource) {
	g := b.graph
	if s, ok := r.Spec.(*MeshSpec); ok {
		m := &meshInfo{spec: s, resource: r, unsafe: map[string]bool{}}
		for _, name := range unsafeNames(r) {
			m.unsafe[name] = true
		}
		g.meshes = g.meshes.With(ordered.String(r.Name), m)
	}
	if first := g.objects.Get(r.objectKey()); first != nil {
		if first.Name != r.Name { // one of them is stored, and awsName was changed
			b.fail(r, "metadata.name", "%s has two App Mesh names, %q and %q%s: a name does not change; delete the old one first, or give the new one another metadata.name",
				r, r.Name, first.Name, first.place())
			return
		}
		b.fail(r, "metadata.name", "%s exists already%s", r, first.place())
		return
	}
	g.objects = g.objects.With(r.objectKey(), r)
	if first := g.named.Get(r.graphName()); first != nil {
		at := "spec.awsName"
		if awsName, _ := r.names(); awsName == nil {
			at = "metadata.name"
		}
		b.fail(r, at, "%s has the App Mesh name %q of %s%s", r, r.Name, first, first.place())
		return
	}
	if twin := g.named.Get(r.twin()); twin != nil {
		gateway, node := r, twin // whichever came first
		if r.Kind == KindVirtualNode {
			gateway, node = twin, r
		}
		b.fail(gateway, "metadata.name", "%s has the App Mesh name %q, and so has %s%s: both would have the identity /%s/%s; give one of them another name, or another awsName",
			gateway, r.Name, node, node.place(), r.Mesh, r.Name)
	}
	g.named = g.named.With(r.graphName(), r)
}

// twin is what would have the same identity as r: the virtual gateway of a virtual node's
// name, and the other way round.
func (r *Resource) twin() Name {
	switch r.Kind {
	case KindVirtualNode:
		return NameOf(KindVirtualGateway, r.Mesh, r.Name)
	case KindVirtualGateway:
		return NameOf(KindVirtualNode, r.Mesh, r.Name)
	}
	return Name{}
}

// find resolves a reference or an ARN; path is that of the struct that has both.
func (b *builder) find(from *Resource, path string, k Kind, ref *Reference, arn string) *Resource {
	to := b.lookUp(from, path, k, ref, arn)
	if to != nil {
		b.link(from, to)
	}
	return to
}

// link notes that an object refers to another one.
func (b *builder) link(from, to *Resource) { b.linkTo(from, to.graphName()) }

// linkTo is link to what need not be there: an object of that name is looked for.
func (b *builder) linkTo(from *Resource, of Name) {
	g, by := b.graph, from.graphName()
	g.referrers = g.referrers.With(of, g.referrers.Get(of).With(by, struct{}{}))
	b.found[by] = append(b.found[by], of)
}

func (b *builder) lookUp(from *Resource, path string, k Kind, ref *Reference, arn string) *Resource {
	field := strings.ToLower(string(k[:1])) + string(k[1:])
	if ref == nil {
		return b.findARN(from, path+"."+field+"ARN", k, arn)
	}
	return b.referent(from, path+"."+field+"Ref", k, *ref)
}

// referent is what a reference names.
func (b *builder) referent(from *Resource, path string, k Kind, ref Reference) *Resource {
	namespace := ref.Namespace
	if namespace == "" {
		namespace = from.Namespace // the CRDs' description of every reference
	}
	to := b.graph.objects.Get(objectKey{k, from.Mesh, namespace, ref.Name})
	if to == nil {
		b.dangling(from, path, MissingError{Kind: k, ObjectName: ref.Name}, describe(k, namespace, ref.Name), " in mesh "+from.Mesh+b.meant(from.Mesh, k, ref.Name))
	}
	return to
}

// meant asks for the object that a reference probably means: one of the same App Mesh
// name, which `signet get` shows, or of the same name in another namespace.
func (b *builder) meant(mesh string, k Kind, name string) string {
	if len(b.errs) >= manifest.MaxErrors {
		return "" // who has so many needs no hint at each, and each is looked for among all objects
	}
	var list []string
	for at, r := range b.graph.objects.From(objectKey{kind: k, mesh: mesh}) {
		if at.kind != k || at.mesh != mesh {
			break
		}
		if at.name != name && r.graphName() != NameOf(k, mesh, name) {
			continue
		}
		text := "{name: " + at.name + "}"
		if at.namespace != "" {
			text = "{name: " + at.name + ", namespace: " + at.namespace + "}"
		}
		list = append(list, text)
	}
	return DidYouMean("a reference has metadata.name and its namespace", list...)
}

func (b *builder) findARN(from *Resource, path string, k Kind, arn string) *Resource {
	of, _ := parseARN(arn)
	if of.Mesh != from.Mesh {
		b.fail(from, path, "%s of mesh %s refers to %s, which is of mesh %s", from, from.Mesh, arn, of.Mesh)
		return nil
	}
	to := b.graph.named.Get(NameOf(k, of.Mesh, of.Name))
	if to == nil {
		b.dangling(from, path, MissingError{Kind: k, AppMeshName: of.Name}, arn, b.meantByARN(of.Mesh, k, of.Name))
	}
	return to
}

// meantByARN asks for the App Mesh names of objects that Kubernetes knows by the name.
func (b *builder) meantByARN(mesh string, k Kind, name string) string {
	if len(b.errs) >= manifest.MaxErrors {
		return ""
	}
	var list []string
	for at, r := range b.graph.objects.From(objectKey{kind: k, mesh: mesh}) {
		if at.kind != k || at.mesh != mesh {
			break
		}
		if at.name == name {
			list = append(list, r.Name)
		}
	}
	return DidYouMean("an ARN has the App Mesh name", list...)
}

func (b *builder) node(r *Resource) {
	s := r.Spec.(*VirtualNodeSpec)
	n := &VirtualNode{Ref: r.ref(), Spec: s}
	for i := range s.Listeners {
		n.Listeners = append(n.Listeners, resolveListener(&s.Listeners[i]))
	}
	if s.ServiceDiscovery != nil {
		n.DNS = s.ServiceDiscovery.DNS
	}
	b.apply(r, n)
	n.Observed = b.observed(r)
	n.AccessLog, n.LogFormat = s.Logging.File(), s.Logging.format()
	b.graph.nodes = b.graph.nodes.With(r.graphName(), n)
	if of, ok := n.Namesake(); ok {
		all := b.graph.namesakes
		b.graph.namesakes = all.With(of, all.Get(of).With(r.graphName(), struct{}{}))
	}
}

// ports are those of a virtual node's listeners.
func (s *VirtualNodeSpec) ports() []uint32 {
	var list []uint32
	for i := range s.Listeners {
		list = append(list, s.Listeners[i].PortMapping.Port)
	}
	return list
}

// tcpPorts are those of a virtual node's listeners that take bytes.
func (s *VirtualNodeSpec) tcpPorts() []uint32 {
	var list []uint32
	for i := range s.Listeners {
		if m := s.Listeners[i].PortMapping; m.Protocol == ProtocolTCP {
			list = append(list, m.Port)
		}
	}
	return list
}

func ports(node *Resource) []uint32 { return node.Spec.(interface{ ports() []uint32 }).ports() }

// sameToOthers: a target's ports, and which of them take bytes, are all that services and routers look at.
func (s *VirtualNodeSpec) sameToOthers(old any) bool {
	was := old.(*VirtualNodeSpec)
	return slices.Equal(s.ports(), was.ports()) && slices.Equal(s.tcpPorts(), was.tcpPorts())
}

func (b *builder) service(r *Resource) {
	s := r.Spec.(*VirtualServiceSpec)
	v := &VirtualService{Mesh: r.Mesh, Name: r.Name}
	if p := s.Provider; p != nil && p.VirtualNode != nil {
		to := b.find(r, "spec.provider.virtualNode", KindVirtualNode, p.VirtualNode.VirtualNodeRef, p.VirtualNode.VirtualNodeARN)
		if to != nil {
			v.Node = to.ref()
		}
		if to != nil && len(ports(to)) == 0 {
			b.fail(r, "spec.provider.virtualNode", "%s is provided by virtualNode %s, which has no listener", r, to.Name)
		}
	}
	if p := s.Provider; p != nil && p.VirtualRouter != nil {
		if to := b.find(r, "spec.provider.virtualRouter", KindVirtualRouter, p.VirtualRouter.VirtualRouterRef, p.VirtualRouter.VirtualRouterARN); to != nil {
			v.Router = to.graphName()
		}
	}
	b.graph.services = b.graph.services.With(r.graphName(), v)
	b.address(r)
}

func (b *builder) backends(r *Resource) {
	n, s := b.graph.nodes.Get(r.graphName()), r.Spec.(*VirtualNodeSpec)
	var defaults *ClientPolicy
	if s.BackendDefaults != nil {
		defaults = s.BackendDefaults.ClientPolicy
	}
	seen := map[Name]int{}
	for i := range s.Backends {
		backend, path := &s.Backends[i].VirtualService, fmt.Sprintf("spec.backends[%d].virtualService", i)
		to := b.find(r, path, KindVirtualService, backend.VirtualServiceRef, backend.VirtualServiceARN)
		if to == nil {
			continue
		}
		if first, dup := seen[to.graphName()]; dup {
			b.fail(r, path, "%s is the backend of spec.backends[%d] already", to, first)
			continue
		}
		seen[to.graphName()] = i
		policy := backend.ClientPolicy
		if policy == nil {
			policy = defaults
		}
		n.Backends = append(n.Backends, Callee{Service: to.graphName(), TLS: resolveClientTLS(policy)})
	}
	for i, ref := range s.BackendGroups {
		at := fmt.Sprintf("spec.backendGroups[%d]", i)
		g := b.referent(r, at, KindBackendGroup, ref)
		if g == nil {
			continue
		}
		b.link(r, g)
		for _, to := range b.servicesOf(g) {
			if _, there := seen[to.graphName()]; there {
				continue // as App Mesh's controller does: a service may be in several groups, and its own policy holds
			}
			seen[to.graphName()] = i
			b.link(r, to)
			n.Backends = append(n.Backends, Callee{Service: to.graphName(), TLS: resolveClientTLS(defaults)})
		}
		if len(n.Backends) > maxBackends {
			b.fail(r, at, "%s has %d backends with those of its groups: at most %d", r, len(n.Backends), maxBackends)
		}
	}
	sortCallees(n.Backends)
}
