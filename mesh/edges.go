package mesh

import (
	"net/http"
	"slices"
)

// Edge is one way by which others come to a virtual node or gateway, as their mesh declares
// it: App Mesh's backends are a graph of who may call whom. Of a request it is what the
// callee's proxy sees when it asks for a decision: behind the rewrites of a gateway that the
// request came through.
type Edge struct {
	// Caller is nil at a virtual gateway: whoever comes to it.
	Caller, Callee *VirtualNode
	// Service is what the caller calls, Route which of its routes leads to the callee; "" where
	// the callee provides the service itself.
	Service, Route string
	// Port is that of the callee's listener of protocol tcp; nothing else is known of what
	// comes there. 0 of requests.
	Port uint32
	// Listener is the port of the one listener of the callee's to which requests come, where
	// that is known of them; else 0, for any.
	Listener uint32
	// Host is for which host a gateway takes a request.
	Host HostMatch
	// Method is "" for any; Paths must all hold.
	Method string
	Paths  []PathMatch
	// Narrowed: the route takes only some of these requests, by headers, query or scheme.
	Narrowed bool
}

// Edges lists the ways to a mesh's virtual nodes and gateways, by the order of their callers,
// then by services and routes as these are tried. A target of weight 0 is reached like any
// other: weights change who answers, and not who is called.
func (g *Graph) Edges(mesh string) []Edge {
	var list []Edge
	for _, n := range g.Nodes(mesh) {
		if n.Gateway == nil {
			for _, to := range n.Backends {
				list = append(list, g.edgesTo(n, g.Service(to.Service), arrival{})...)
			}
			continue
		}
		for _, r := range n.Gateway.Routes {
			e := Edge{Callee: n, Route: r.Name, Host: r.Host, Listener: r.Port}
			if e.narrow(r.Match, r.Match.PathMatch(), PathMatch{}) {
				list = append(list, e)
			}
			list = append(list, g.edgesTo(n, g.Service(r.Service), arrivalBy(r))...)
		}
	}
	return list
}

// arrival is how requests come to a service: a virtual node's as they are, a gateway's as its
// route takes and writes them.
type arrival struct {
	match Match // except for the path
	path  PathMatch
	port  uint32 // of the service that is called; 0 for each
}

func arrivalBy(r *GatewayRoute) arrival {
	a := arrival{match: r.Match, path: r.Match.PathMatch(), port: r.ServicePort}
	switch {
	case r.Rewrite.Path != "":
		a.path = PathMatch{Exact: r.Rewrite.Path}
	case r.Rewrite.Prefix != "":
		a.path = Match{Prefix: r.Rewrite.Prefix}.PathMatch()
	}
	return a
}

// edgesTo are those of one caller to what answers for a service.
func (g *Graph) edgesTo(caller *VirtualNode, s *VirtualService, a arrival) []Edge {
	node, router := g.Node(s.Node), g.Router(s.Router)
	ports := PortsOf(node, router)
	if caller.Gateway != nil && a.port == 0 && len(ports) > 0 {
		a.port = Portless(ports)
	}
	called := func(p uint32) bool { return a.port == 0 || a.port == p }
	var list []Edge
	add := func(e Edge, m Match) {
		e.Caller, e.Service = caller, s.Name
		if both, ok := a.match.And(m); ok && e.narrow(both, a.path, m.PathMatch()) {
			list = append(list, e)
		}
	}
	if node != nil {
		if slices.ContainsFunc(ports, called) {
			add(Edge{Callee: node, Listener: a.port}, Match{})
		}
		for _, l := range node.Listeners {
			if caller.Gateway == nil && l.Protocol == ProtocolTCP {
				add(Edge{Callee: node, Port: l.Port}, Match{})
			}
		}
	}
	if router == nil {
		return list
	}
	for _, r := range router.Routes {
		for _, t := range r.Targets {
			switch e := (Edge{Callee: g.Node(t.Node), Route: r.Name}); {
			case e.Callee == nil:
			case r.TCP:
				if e.Port = t.Port; caller.Gateway == nil {
					add(e, Match{})
				}
			case slices.ContainsFunc(ports, func(p uint32) bool { return called(p) && (r.Match.Port == 0 || r.Match.Port == p) }):
				e.Listener = t.Port
				add(e, r.Match)
			}
		}
	}
	return list
}

// narrow makes an edge that of the requests which a match takes and whose paths two others
// take; false if there are none.
func (e *Edge) narrow(m Match, a, b PathMatch) (ok bool) {
	if e.Method = m.Method; m.GRPC { // every call of gRPC is a POST
		if e.Method != "" && e.Method != http.MethodPost {
			return false
		}
		e.Method = http.MethodPost
	}
	e.Narrowed = m.Scheme != "" || len(m.Headers) > 0 || len(m.Query) > 0
	e.Paths, ok = a.and(b)
	return ok
}

// PortsOf lists the ports on which a service may be called by HTTP, each once: those of the
// router or node that answers for it, of which either may be nil.
func PortsOf(node *VirtualNode, router *VirtualRouter) []uint32 {
	var ports []uint32
	switch {
	case router != nil:
		ports = router.Ports
	case node != nil:
		for _, l := range node.Listeners {
			if l.Protocol != ProtocolTCP {
				ports = append(ports, l.Port)
			}
		}
	}
	var once []uint32
	for _, p := range ports {
		if !slices.Contains(once, p) {
			once = append(once, p)
		}
	}
	return once
}

// Portless is what a bare name means: port 80 if the service has it (RFC 9110 section
// 4.2.1), else its first port.
func Portless(ports []uint32) uint32 {
	if slices.Contains(ports, 80) {
		return 80
	}
	return ports[0]
}
