package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func (b *builder) router(r *Resource) {
	s := r.Spec.(*VirtualRouterSpec)
	v := &VirtualRouter{Mesh: r.Mesh, Name: r.Name, Spec: s}
	for _, l := range s.Listeners {
		if l.PortMapping.Protocol == ProtocolTCP {
			v.TCPPorts = append(v.TCPPorts, l.PortMapping.Port)
			continue
		}
		v.Ports = append(v.Ports, l.PortMapping.Port)
	}
	for i := range s.Routes {
		route, path := &s.Routes[i], fmt.Sprintf("spec.routes[%d]", i)
		switch {
		case route.HTTPRoute != nil:
			v.Routes = append(v.Routes, b.httpRoute(r, path+".httpRoute", route, route.HTTPRoute))
		case route.HTTP2Route != nil:
			v.Routes = append(v.Routes, b.httpRoute(r, path+".http2Route", route, route.HTTP2Route))
		case route.GRPCRoute != nil:
			v.Routes = append(v.Routes, b.grpcRoute(r, path+".grpcRoute", route))
		case route.TCPRoute != nil:
			v.Routes = append(v.Routes, b.tcpRoute(r, path+".tcpRoute", route))
		}
	}
	sortRoutes(v.Routes)
	b.graph.routers = b.graph.routers.With(r.graphName(), v)
}

func (b *builder) httpRoute(r *Resource, path string, spec *RouteSpec, h *HTTPRoute) Route {
	out := Route{
		Name: spec.Name, Priority: spec.Priority, Match: resolveMatch(&h.Match), Timeout: resolveTimeout(h.Timeout),
		Targets: b.targets(r, path, h.Action, false),
	}
	if p := h.RetryPolicy; p != nil {
		out.Retry = retry(p.MaxRetries, p.PerRetryTimeout, Retry{HTTP: p.HTTPRetryEvents, TCP: p.TCPRetryEvents})
	}
	return out
}

func (b *builder) grpcRoute(r *Resource, path string, spec *RouteSpec) Route {
	h := spec.GRPCRoute
	out := Route{
		Name: spec.Name, Priority: spec.Priority, Match: resolveGRPCMatch(&h.Match), Timeout: resolveTimeout(h.Timeout),
		Targets: b.targets(r, path, h.Action, false),
	}
	if p := h.RetryPolicy; p != nil {
		out.Retry = retry(p.MaxRetries, p.PerRetryTimeout, Retry{HTTP: p.HTTPRetryEvents, TCP: p.TCPRetryEvents, GRPC: p.GRPCRetryEvents})
	}
	return out
}

func (b *builder) tcpRoute(r *Resource, path string, spec *RouteSpec) Route {
	t := spec.TCPRoute
	out := Route{Name: spec.Name, Priority: spec.Priority, TCP: true, Timeout: resolveTCPTimeout(t.Timeout)}
	if t.Match != nil {
		out.Match.Port = t.Match.Port
	}
	out.Targets = b.targets(r, path, t.Action, true)
	return out
}

// targetSpeaks refuses a target that does not take what a route sends.
func (b *builder) targetSpeaks(r, to *Resource, path string, port uint32, tcp bool) {
	if has := slices.Contains(to.Spec.(*VirtualNodeSpec).tcpPorts(), port); has != tcp {
		what, want := "requests", "http, http2 or grpc"
		if tcp {
			what, want = "the bytes of a tcpRoute", "tcp"
		}
		b.fail(r, path, "%s does not take %s on port %d: give its listener there the protocol %s, or send them elsewhere%s", to, what, port, want, to.place())
	}
}

func (b *builder) targets(r *Resource, path string, a RouteAction, tcp bool) []WeightedTarget {
	var out []WeightedTarget
	for i := range a.WeightedTargets {
		if t, ok := b.target(r, fmt.Sprintf("%s.action.weightedTargets[%d]", path, i), &a.WeightedTargets[i], tcp); ok {
			out = append(out, t)
		}
	}
	return out
}

func retry(most int64, perTry Duration, events Retry) *Retry {
	events.MaxRetries, events.PerTry = uint32(min(most, maxRetries)), perTry.Std() //nolint:gosec // bounded
	return &events
}

// maxRetries bounds what the API leaves unbounded: more than this in one
// request is a storm, and no proxy gets there within any timeout.
const maxRetries = 1000

func (b *builder) target(r *Resource, path string, spec *WeightedTargetSpec, tcp bool) (WeightedTarget, bool) {
	to := b.find(r, path, KindVirtualNode, spec.VirtualNodeRef, spec.VirtualNodeARN)
	if to == nil {
		return WeightedTarget{}, false
	}
	has := ports(to)
	t := WeightedTarget{Node: to.ref(), Weight: uint32(spec.Weight), Port: spec.Port} //nolint:gosec // 0 to 100, by its check
	switch {
	case len(has) == 0:
		b.fail(r, path, "%s has no listener%s", to, to.place())
	case spec.Port != 0 && !slices.Contains(has, spec.Port):
		b.fail(r, path+".port", "%s has no listener on port %d%s", to, spec.Port, to.place())
	case spec.Port == 0 && len(has) > 1: // AM-crossfield
		b.fail(r, path+".port", "is required: %s has %d listeners%s", to, len(has), to.place())
	case spec.Port == 0:
		t.Port = has[0]
	}
	if slices.Contains(has, t.Port) {
		b.targetSpeaks(r, to, path, t.Port, tcp)
	}
	return t, true
}

func resolveMatch(m *HTTPRouteMatch) Match {
	out := Match{Prefix: m.Prefix, Method: m.Method, Scheme: m.Scheme, Headers: resolveHeaders(m.Headers), Port: m.Port}
	if m.Path != nil {
		out.Path, out.PathRegex = m.Path.Exact, m.Path.Regex
	}
	for _, q := range m.QueryParameters {
		to := QueryMatch{Name: q.Name, Present: q.Match == nil || q.Match.Exact == ""}
		if !to.Present {
			to.Exact = q.Match.Exact
		}
		out.Query = append(out.Query, to)
	}
	return out
}

// resolveGRPCMatch: the path of a call is /service/method.
func resolveGRPCMatch(m *GRPCRouteMatch) Match {
	out := Match{Prefix: "/", Headers: resolveHeaders(m.Metadata), Port: m.Port, GRPC: true}
	switch {
	case m.MethodName != "":
		out.Prefix, out.Path = "", "/"+m.ServiceName+"/"+m.MethodName
	case m.ServiceName != "":
		out.Prefix = "/" + m.ServiceName + "/"
	}
	return out
}

func resolveHeaders(headers []HTTPRouteHeader) []HeaderMatch {
	var out []HeaderMatch
	for _, h := range headers {
		to := HeaderMatch{Name: h.Name, Invert: h.Invert != nil && *h.Invert, Present: h.Match == nil}
		if m := h.Match; m != nil {
			to.Exact, to.Prefix, to.Suffix, to.Regex, to.Range = m.Exact, m.Prefix, m.Suffix, m.Regex, m.Range
		}
		out = append(out, to)
	}
	return out
}

// lastPriority is that of a route without one (the CRD of gateway routes says
// so of theirs; AM-priority).
const lastPriority = 1000

// sortRoutes puts routes in the order in which App Mesh tries them: by
// priority, 0 first; then an exact path before the others, and the longer before
// the shorter, a prefix before an expression of the same length; then those with
// more conditions. What is left is by name, so that the order of a resource never
// changes what is served.
func sortRoutes(routes []Route) {
	slices.SortFunc(routes, func(a, b Route) int {
		return cmp.Or(
			cmp.Compare(a.order(), b.order()),
			cmp.Compare(len(b.Match.Path), len(a.Match.Path)),
			cmp.Compare(len(b.Match.Prefix)+len(b.Match.PathRegex), len(a.Match.Prefix)+len(a.Match.PathRegex)),
			cmp.Compare(len(a.Match.PathRegex), len(b.Match.PathRegex)),
			cmp.Compare(b.Match.conditions(), a.Match.conditions()),
			strings.Compare(a.Name, b.Name),
		)
	})
}

// conditions is how many there are beside the path.
func (m Match) conditions() int {
	n := len(m.Headers) + len(m.Query)
	for _, given := range []string{m.Method, m.Scheme} {
		if given != "" {
			n++
		}
	}
	return n
}

func (r Route) order() int64 {
	if r.Priority == nil {
		return lastPriority
	}
	return *r.Priority
}
