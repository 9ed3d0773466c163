package mesh

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// HeadersWithUnderscores are those of the mesh that its proxies pass on, in lower case and sorted;
// no request has another one (docs/decisions/088). What is stored by a release that could pass a
// name on that this one cannot is not among them.
func (g *Graph) HeadersWithUnderscores(mesh string) []string {
	return passable(g.meshOptions(mesh).HeadersWithUnderscores)
}

// NotPassed are the names that an object has its mesh pass on and that it cannot. An apply of such
// an object is refused; one that is stored is served without them.
func NotPassed(r *Resource) manifest.Errors {
	s, ok := r.Spec.(*MeshOptionsSpec)
	if !ok {
		return nil
	}
	var errs manifest.Errors
	for i, name := range s.HeadersWithUnderscores {
		if why := notPassed(name); why != "" {
			errs = append(errs, r.fieldError(fmt.Sprintf("spec.headersWithUnderscores[%d]", i), manifest.Clip(name)+" "+why))
		}
	}
	return errs
}

// Unseen are the headers with underscores that routes of a mesh look at and no request has,
// since its options do not name them.
func (g *Graph) Unseen(mesh string) []string {
	var names []string
	for _, r := range g.Routers(mesh) {
		for _, route := range r.Routes {
			names = append(names, route.Match.underscored()...)
		}
	}
	for _, n := range g.Nodes(mesh) {
		if n.Gateway == nil {
			continue
		}
		for _, route := range n.Gateway.Routes {
			names = append(names, route.Match.underscored()...)
		}
	}
	pass := g.HeadersWithUnderscores(mesh)
	return slices.DeleteFunc(lowered(names), func(name string) bool { return slices.Contains(pass, name) })
}

// Underscored are the headers with underscores that an object's routes look at and that a mesh may
// pass on.
func Underscored(r *Resource) []string {
	var matches []Match
	http := func(h *HTTPRoute) {
		if h != nil {
			matches = append(matches, resolveMatch(&h.Match))
		}
	}
	switch s := r.Spec.(type) {
	case *VirtualRouterSpec:
		for i := range s.Routes {
			http(s.Routes[i].HTTPRoute)
			http(s.Routes[i].HTTP2Route)
			if h := s.Routes[i].GRPCRoute; h != nil {
				matches = append(matches, resolveGRPCMatch(&h.Match))
			}
		}
	case *GatewayRouteSpec:
		matches = append(matches, s.form().match)
	}
	var names []string
	for _, m := range matches {
		names = append(names, m.underscored()...)
	}
	return passable(names)
}

// passable are the names that a mesh can pass on, nil for none.
func passable(names []string) []string {
	return lowered(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return notPassed(name) != "" }))
}

func (m Match) underscored() (names []string) {
	for _, h := range m.Headers {
		if strings.Contains(h.Name, "_") {
			names = append(names, h.Name)
		}
	}
	return names
}

func lowered(names []string) []string {
	var list []string
	for _, name := range names {
		list = append(list, strings.ToLower(name))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// notPassed is why a mesh cannot pass a header on, "" if it can: applications that read _ as -
// would take it for one that proxies set, or take away, or that a load balancer vouches for.
func notPassed(name string) string {
	other := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch {
	case !strings.Contains(name, "_"):
		return "has no underscore: it passes, or is taken away, as any other"
	case strings.Contains(name, "%"): // its proxies tell the agent by a text that Envoy expands
		return "has a %, which is an operator's to Envoy"
	case slices.ContainsFunc(vouched(), func(begins string) bool { return strings.HasPrefix(other, begins) }), slices.Contains(proxysOwn(), other):
		return "many applications read it as " + other + ", of which callers write none"
	case slices.Contains(framing, other):
		return "some read it as " + other + ", and others do not: they would see two requests in one"
	}
	return ""
}

// vouched begin the names of headers that proxies or load balancers set.
func vouched() []string {
	return append(proxy.UserHeaders(), "x-envoy-", proxy.HeaderPrefix, "x-forwarded-", "x-amzn-")
}

// proxysOwn are the others that proxies set, or take away.
func proxysOwn() []string {
	names := []string{"x-request-id", proxy.HeaderByGateway}
	for _, w := range proxy.WithheldHeaders() {
		names = append(names, w.Headers...)
	}
	return names
}

// framing are headers by which a request's end is told.
var framing = []string{"content-length", "transfer-encoding", "proxy-connection", "keep-alive"}
