package mesh

import (
	"net/netip"

	"signet.example/proxy"
)

// A node that is found by DNS under the name of a service is found at the service's own address
// by whoever has the service's record, or its name server: a proxy that listens there would call
// itself without end. So such a node is called at registered endpoints alone, and where it has
// none to come, since no agent may host it, the service has no address.

// AddressOf is the loopback address of a virtual service, at which proxies that were asked to
// have their applications call it; not valid where its mesh gives none, and where a node that
// nobody hosts is found under its name: see [Graph.Misleading].
func (g *Graph) AddressOf(service Name, managed func(proxy.Ref) bool) netip.Addr {
	if len(g.Misleading(service, managed)) > 0 {
		return netip.Addr{}
	}
	return g.allotted(service)
}

// AddressesFor are those of the services that a virtual node calls, by their names in lower case.
func (g *Graph) AddressesFor(node proxy.Ref, managed func(proxy.Ref) bool) map[string]string {
	all := map[string]string{}
	if n := g.Node(node); n != nil {
		for _, to := range n.Backends {
			if a := g.AddressOf(to.Service, managed); a.IsValid() {
				all[to.Service.Name] = a.String()
			}
		}
	}
	return all
}

// Misleading are the nodes because of which a service of a mesh with addresses has none: they are
// found by DNS under its name, and no agent may host them. A nil managed means that none may.
func (g *Graph) Misleading(service Name, managed func(proxy.Ref) bool) []*VirtualNode {
	if !g.allotted(service).IsValid() {
		return nil
	}
	var list []*VirtualNode
	for name := range g.namesakes.Get(nameInDNS(service.Mesh, service.Name)).All() {
		if n := g.nodes.Get(name); managed == nil || !managed(n.Ref) {
			list = append(list, n)
		}
	}
	return list
}

// Namesakes are the service by whose name a node is found, or the nodes that are found by that of
// a service.
func (g *Graph) Namesakes(n Name) (list []Name) {
	if service, ok := g.nodes.Get(n).Namesake(); ok {
		return []Name{service}
	}
	if n.Kind == KindVirtualService {
		for name := range g.namesakes.Get(nameInDNS(n.Mesh, n.Name)).All() {
			list = append(list, name)
		}
	}
	return list
}

// LeadsBack reports whether the name by which a node is found is that of a service that has an
// address, or could have one.
func (g *Graph) LeadsBack(node proxy.Ref) bool {
	name, ok := g.Node(node).Namesake()
	if !ok || !g.allotted(name).IsValid() {
		return false
	}
	dotted := name
	dotted.Name += "."
	return g.services.Get(name) != nil || g.services.Get(dotted) != nil
}

func (b *builder) unnamesake(n *VirtualNode) {
	of, ok := n.Namesake()
	if !ok {
		return
	}
	rest := b.graph.namesakes.Get(of).Without(NodeName(n.Ref))
	if b.graph.namesakes = b.graph.namesakes.With(of, rest); rest.Empty() {
		b.graph.namesakes = b.graph.namesakes.Without(of)
	}
}
