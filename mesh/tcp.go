package mesh

import (
	"iter"
	"slices"
)

// TCPCallers lists the virtual nodes whose backends lead to a listener of protocol tcp,
// by name: nobody else's connections are routed there.
func (g *Graph) TCPCallers(n *VirtualNode, port uint32) []*VirtualNode {
	return slices.DeleteFunc(g.callersOf(n), func(caller *VirtualNode) bool {
		return caller.Gateway != nil || !slices.ContainsFunc(caller.Backends, func(to Callee) bool {
			s := g.Service(to.Service)
			if s.Node == n.Ref {
				return true
			}
			router := g.Router(s.Router)
			return router != nil && slices.ContainsFunc(router.Routes, func(r Route) bool {
				return r.TCP && slices.ContainsFunc(r.Targets, func(t WeightedTarget) bool { return t.Node == n.Ref && t.Port == port })
			})
		})
	})
}

// CalledBy lists the virtual nodes to which what an object refers to leads, some more than
// once: a change of the object changes who may call them. An object that is not there
// leads nowhere.
func (g *Graph) CalledBy(n Name) iter.Seq[*VirtualNode] {
	return func(yield func(*VirtualNode) bool) { g.called(n, yield) }
}

func (g *Graph) called(n Name, yield func(*VirtualNode) bool) bool {
	of := g.refers.Get(n)
	if of == nil {
		return true
	}
	for _, to := range of.to {
		if node := g.nodes.Get(to); node != nil {
			if !yield(node) {
				return false
			}
		} else if !g.called(to, yield) {
			return false
		}
	}
	return true
}

// HasTCP reports whether any of a node's listeners takes bytes.
func (n *VirtualNode) HasTCP() bool {
	return slices.ContainsFunc(n.Listeners, func(l Listener) bool { return l.Protocol == ProtocolTCP })
}
