package mesh

import (
	"fmt"
	"strings"

	"signet.example/internal/manifest"
)

// NewGraph resolves every reference between resources. Each must have a mesh
// among them; a reference that leads nowhere is reported with both its ends.
// What Unsupported names is refused here too, so that nothing can be left out
// of what is served without anybody noticing.
func NewGraph(resources []*Resource) (*Graph, error) {
	own := make([]*Resource, len(resources))
	for i, r := range resources {
		c := *r
		own[i] = &c
	}
	if err := AssignMeshes(own); err != nil {
		return nil, err
	}
	b := &builder{
		graph:   &Graph{meshes: map[string]*meshGraph{}},
		objects: map[objectKey]*Resource{}, named: map[nameKey]*Resource{},
		nodes: map[*Resource]*VirtualNode{}, routers: map[*Resource]*VirtualRouter{}, services: map[*Resource]*VirtualService{},
	}
	for _, r := range own {
		b.errs = append(b.errs, Unsupported(r)...)
		b.index(r)
	}
	// Referents first, so that each step finds what it points at.
	b.each(own, KindVirtualNode, b.node)
	b.each(own, KindVirtualRouter, b.router)
	b.each(own, KindVirtualService, b.service)
	b.each(own, KindVirtualNode, b.backends)
	if err := b.errs.OrNil(); err != nil {
		return nil, err
	}
	return b.graph, nil
}

type objectKey struct {
	kind                  Kind
	mesh, namespace, name string
}

type nameKey struct {
	kind       Kind
	mesh, name string
}

type builder struct {
	graph    *Graph
	objects  map[objectKey]*Resource // by Kubernetes' names, for references
	named    map[nameKey]*Resource   // by App Mesh's, for ARNs and duplicates
	nodes    map[*Resource]*VirtualNode
	routers  map[*Resource]*VirtualRouter
	services map[*Resource]*VirtualService
	errs     manifest.Errors
}

func (b *builder) each(rs []*Resource, k Kind, do func(*Resource)) {
	for _, r := range rs {
		if r.Kind == k {
			do(r)
		}
	}
}

func (b *builder) fail(r *Resource, path, format string, args ...any) {
	b.errs = append(b.errs, r.fieldError(path, fmt.Sprintf(format, args...)))
}

func (b *builder) index(r *Resource) {
	object := objectKey{r.Kind, r.Mesh, r.Namespace, r.ObjectName}
	if s, ok := r.Spec.(*MeshSpec); ok {
		object.mesh = "" // a mesh is in none
		b.graph.meshes[r.Name] = &meshGraph{
			spec: s, unsafe: map[string]bool{}, nodes: map[string]*VirtualNode{}, routers: map[string]*VirtualRouter{}, services: map[string]*VirtualService{},
		}
		for _, name := range unsafeNames(r) {
			b.graph.meshes[r.Name].unsafe[name] = true
		}
	}
	if first, dup := b.objects[object]; dup {
		if first.Name != r.Name { // one of them is stored, and awsName was changed
			b.fail(r, "metadata.name", "%s has two App Mesh names, %q and %q%s: a name does not change; delete the old one first, or give the new one another metadata.name",
				r, r.Name, first.Name, first.place())
			return
		}
		b.fail(r, "metadata.name", "%s exists already%s", r, first.place())
		return
	}
	b.objects[object] = r
	// Hosts are compared without case, as clients and Envoy do.
	name := nameKey{r.Kind, r.Mesh, r.Name}
	if r.Kind == KindVirtualService {
		name.name = strings.ToLower(r.Name)
	}
	if first, dup := b.named[name]; dup && r.Kind != KindBackendGroup {
		b.fail(r, "spec.awsName", "%s has the App Mesh name %q of %s%s", r, r.Name, first, first.place())
		return
	}
	b.named[name] = r
}

// find resolves a reference or an ARN; path is that of the struct that has both.
func (b *builder) find(from *Resource, path string, k Kind, ref *Reference, arn string) *Resource {
	field := strings.ToLower(string(k[:1])) + string(k[1:])
	if ref == nil {
		return b.findARN(from, path+"."+field+"ARN", k, arn)
	}
	path += "." + field + "Ref"
	namespace := ref.Namespace
	if namespace == "" {
		namespace = from.Namespace // the CRDs' description of every reference
	}
	to := b.objects[objectKey{k, from.Mesh, namespace, ref.Name}]
	if to == nil {
		b.fail(from, path, "%s refers to %s, which does not exist in mesh %s", from, describe(k, namespace, ref.Name), from.Mesh)
	}
	return to
}

func (b *builder) findARN(from *Resource, path string, k Kind, arn string) *Resource {
	mesh, _, name, _ := parseARN(arn)
	if mesh != from.Mesh {
		b.fail(from, path, "%s of mesh %s refers to %s, which is of mesh %s", from, from.Mesh, arn, mesh)
		return nil
	}
	key := nameKey{k, mesh, name}
	if k == KindVirtualService {
		key.name = strings.ToLower(name)
	}
	to := b.named[key]
	if to == nil {
		b.fail(from, path, "%s refers to %s, which does not exist", from, arn)
	}
	return to
}

func (b *builder) node(r *Resource) {
	s := r.Spec.(*VirtualNodeSpec)
	n := &VirtualNode{Mesh: r.Mesh, Name: r.Name, Spec: s, clientTLS: map[*VirtualService]*ClientTLS{}}
	for i := range s.Listeners {
		n.Listeners = append(n.Listeners, resolveListener(&s.Listeners[i]))
	}
	if s.ServiceDiscovery != nil {
		n.DNS = s.ServiceDiscovery.DNS
	}
	if s.Logging != nil && s.Logging.AccessLog != nil && s.Logging.AccessLog.File != nil {
		n.AccessLog = s.Logging.AccessLog.File.Path
	}
	b.nodes[r] = n
	b.graph.meshes[r.Mesh].nodes[r.Name] = n
}

func (b *builder) service(r *Resource) {
	s := r.Spec.(*VirtualServiceSpec)
	v := &VirtualService{Mesh: r.Mesh, Name: r.Name}
	if p := s.Provider; p != nil && p.VirtualNode != nil {
		to := b.find(r, "spec.provider.virtualNode", KindVirtualNode, p.VirtualNode.VirtualNodeRef, p.VirtualNode.VirtualNodeARN)
		v.Node = b.nodes[to]
	}
	if p := s.Provider; p != nil && p.VirtualRouter != nil {
		to := b.find(r, "spec.provider.virtualRouter", KindVirtualRouter, p.VirtualRouter.VirtualRouterRef, p.VirtualRouter.VirtualRouterARN)
		v.Router = b.routers[to]
	}
	if v.Node != nil && len(v.Node.Listeners) == 0 {
		b.fail(r, "spec.provider.virtualNode", "%s is provided by virtualNode %s, which has no listener", r, v.Node.Name)
	}
	b.services[r] = v
	b.graph.meshes[r.Mesh].services[strings.ToLower(r.Name)] = v
}

func (b *builder) backends(r *Resource) {
	n := b.nodes[r]
	var defaults *ClientPolicy
	if n.Spec.BackendDefaults != nil {
		defaults = n.Spec.BackendDefaults.ClientPolicy
	}
	seen := map[*VirtualService]int{}
	for i := range n.Spec.Backends {
		backend, path := &n.Spec.Backends[i].VirtualService, fmt.Sprintf("spec.backends[%d].virtualService", i)
		to := b.find(r, path, KindVirtualService, backend.VirtualServiceRef, backend.VirtualServiceARN)
		if to == nil {
			continue
		}
		v := b.services[to]
		if first, dup := seen[v]; dup {
			b.fail(r, path, "%s is the backend of spec.backends[%d] already", to, first)
			continue
		}
		seen[v] = i
		n.Backends = append(n.Backends, v)
		policy := backend.ClientPolicy
		if policy == nil {
			policy = defaults
		}
		n.clientTLS[v] = resolveClientTLS(policy)
	}
	sortServices(n.Backends)
}
