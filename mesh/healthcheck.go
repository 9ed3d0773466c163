package mesh

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"signet.example/proxy"
)

// HealthChecks lists each path that clients' proxies ask of a node's listeners, by
// mesh, node, path and port. A target of weight 0 is probed like any other.
func (g *Graph) HealthChecks() []HealthCheck {
	var out []HealthCheck
	for _, mesh := range g.Meshes() {
		for _, n := range g.Nodes(mesh) {
			for _, l := range n.Listeners {
				out = append(out, g.healthChecks(n, l)...)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b HealthCheck) int {
		return cmp.Or(a.Node.Compare(b.Node), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// healthChecks are those of one listener: its own, and those of load balancers at other paths.
func (g *Graph) healthChecks(n *VirtualNode, l Listener) []HealthCheck {
	var list []HealthCheck
	method, own := l.Probe.request()
	if own != "" {
		list = append(list, HealthCheck{Node: n.Ref, Method: method, Path: own, Port: l.Port, Callers: g.callersOf(n)})
		for _, in := range l.Ingress {
			list[0].Ingress = append(list[0].Ingress, in.Name)
		}
	}
	for _, in := range l.Ingress {
		asks := func(h HealthCheck) bool { return h.Method == http.MethodGet && h.Path == in.HealthCheckPath }
		switch i := slices.IndexFunc(list, asks); {
		case in.HealthCheckPath == "", i >= 0 && slices.Contains(list[i].Ingress, in.Name):
		case i >= 0:
			list[i].Ingress = append(list[i].Ingress, in.Name)
		default:
			list = append(list, HealthCheck{Node: n.Ref, Method: http.MethodGet, Path: in.HealthCheckPath, Port: l.Port, Ingress: []string{in.Name}})
		}
	}
	return list
}

// request is what a probe asks for; nothing where it only connects.
func (p *Probe) request() (method, path string) {
	switch {
	case p == nil || p.Protocol == ProtocolTCP:
		return "", ""
	case p.Protocol == ProtocolGRPC:
		return http.MethodPost, proxy.GRPCHealthCheck
	}
	return http.MethodGet, p.Path
}

// callersOf lists the nodes that declare a backend which reaches n, each once, by name.
func (g *Graph) callersOf(n *VirtualNode) []*VirtualNode {
	var list []*VirtualNode
	g.callers(NodeName(n.Ref), func(caller *VirtualNode) bool {
		list = append(list, caller)
		return true
	})
	slices.SortFunc(list, func(a, b *VirtualNode) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(list)
}

// SameToPolicy reports whether two graphs have the same virtual nodes, the same health
// checks by the same callers, and the same nodes that are observed, as far as a look at what
// differs can tell: false may mean only that it cannot.
func (g *Graph) SameToPolicy(o *Graph) bool {
	if g.meshes != o.meshes {
		return false
	}
	for name := range g.nodes.Differ(o.nodes) {
		if a, b := g.nodes.Get(name), o.nodes.Get(name); a == nil || b == nil || !a.sameToPolicy(b) {
			return false
		}
	}
	for name := range g.services.Differ(o.services) {
		if a, b := g.services.Get(name), o.services.Get(name); a == nil || b == nil || *a != *b {
			return false
		}
	}
	for name := range g.routers.Differ(o.routers) {
		if a, b := g.routers.Get(name), o.routers.Get(name); a == nil || b == nil || !maps.Equal(a.targets(), b.targets()) {
			return false
		}
	}
	return true
}

// sameToPolicy reports whether n is checked and observed as o is, and calls what it calls.
func (n *VirtualNode) sameToPolicy(o *VirtualNode) bool {
	return n.Observed == o.Observed && slices.EqualFunc(n.Listeners, o.Listeners, func(a, b Listener) bool {
		return slices.EqualFunc(a.Ingress, b.Ingress, func(x, y Ingress) bool { return x.Name == y.Name && x.HealthCheckPath == y.HealthCheckPath }) &&
			(a.Probe == b.Probe || a.Port == b.Port && a.Probe != nil && b.Probe != nil && *a.Probe == *b.Probe)
	}) && slices.EqualFunc(n.Backends, o.Backends, func(a, b Callee) bool { return a.Service == b.Service })
}

// targets are the nodes to which a router sends anything.
func (r *VirtualRouter) targets() map[proxy.Ref]bool {
	nodes := map[proxy.Ref]bool{}
	for _, route := range r.Routes {
		for _, t := range route.Targets {
			nodes[t.Node] = true
		}
	}
	return nodes
}
