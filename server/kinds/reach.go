package kinds

import (
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/proxy"
)

// Reached is the virtual nodes and gateways whose proxies may refuse what these objects say. A Mesh and
// its options reach all nodes of the mesh, and count where nothing that reaches a node was changed after
// them: what its proxies refuse may otherwise be another's.
func Reached(graph *mesh.Graph, objects ordered.Map[Key, *Object], keys []Key) map[proxy.Ref]bool {
	reached, wide := map[proxy.Ref]bool{}, map[string]uint64{} // by mesh, when it was changed last
	for _, k := range keys {
		o := objects.Get(k)
		switch {
		case o == nil:
		case mesh.Kind(k.Kind).Wide():
			wide[k.Mesh] = max(wide[k.Mesh], o.Revision)
		default:
			for n := range graph.Reaching(o.subject()) {
				reached[n.Ref] = true
			}
		}
	}
	if len(wide) == 0 {
		return reached
	}
	later := map[proxy.Ref]bool{}
	for _, o := range objects.All() {
		n := o.subject()
		if since, ok := wide[n.Mesh]; ok && o.Revision > since {
			for n := range graph.Reaching(n) {
				later[n.Ref] = true
			}
		}
	}
	for name := range wide {
		for _, n := range graph.Nodes(name) {
			reached[n.Ref] = reached[n.Ref] || !later[n.Ref]
		}
	}
	return reached
}

// subject is what an object is of in the graph of meshes; what no proxy is configured by is of nothing.
func (o *Object) subject() mesh.Name {
	k := o.Key()
	if b, ok := o.Value.(identity.Binding); ok { // callers of its node are told whom they reach
		return mesh.NodeName(proxy.For(b.VirtualNode.Mesh, b.VirtualNode.Name, b.VirtualNode.Gateway))
	}
	if k.Row().Reach != Callers {
		return mesh.Name{}
	}
	return mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name)
}
