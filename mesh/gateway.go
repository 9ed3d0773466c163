package mesh

import (
	"cmp"
	"slices"
	"strings"
)

// Gateway is what a virtual gateway does with requests from outside: its routes, in the
// order in which they are tried.
type Gateway struct {
	Routes []*GatewayRoute
}

// GatewayRoute is one rule of a gateway: which requests it takes, as what they go on, and
// to which service, whose own routes then hold.
type GatewayRoute struct {
	Mesh, Name string
	Gateway    Name
	Priority   *int64
	// Port is that of the gateway's listener, 0 for all of them.
	Port    uint32
	Host    HostMatch
	Match   Match
	Rewrite Rewrite
	Service Name
	// ServicePort is 0 where the route names none: the one that a caller means who names
	// none either.
	ServicePort uint32
}

// HostMatch is Exact, or Suffix, or where both are empty any host.
type HostMatch struct {
	Exact, Suffix string
}

// Rewrite is as what a request goes on.
type Rewrite struct {
	// KeepHost leaves the host as the caller wrote it; else it becomes the service's name.
	KeepHost bool
	// Path is what the whole path becomes, "" for none.
	Path string
	// Prefix is what the matched prefix becomes, "" for itself.
	Prefix string
}

// defaultPrefix is what the matched prefix becomes where the route says nothing.
const defaultPrefix = "/"

// gatewayRoute makes a route of a gateway. The gateway looks it up.
func (b *builder) gatewayRoute(r *Resource) {
	s := r.Spec.(*GatewayRouteSpec)
	f := s.form()
	gateway := b.gatewayOf(r, s)
	if gateway == nil {
		return
	}
	b.link(r, gateway)
	to := b.find(r, f.path+".action.target.virtualService", KindVirtualService, f.target.VirtualService.VirtualServiceRef, f.target.VirtualService.VirtualServiceARN)
	if to == nil {
		return
	}
	if f.port != 0 && !slices.Contains(gateway.Spec.(*VirtualGatewaySpec).ports(), f.port) {
		b.fail(r, f.path+".match.port", "%s has no listener on port %d%s", gateway, f.port, gateway.place())
	}
	out := &GatewayRoute{
		Mesh: r.Mesh, Name: r.Name, Gateway: gateway.graphName(), Priority: s.Priority, Port: f.port,
		Match: f.match, Rewrite: f.rewrite, Service: to.graphName(), ServicePort: f.target.Port,
	}
	if f.host != nil {
		out.Host = HostMatch{strings.ToLower(f.host.Exact), strings.ToLower(f.host.Suffix)}
	}
	b.graph.gatewayRoutes = b.graph.gatewayRoutes.With(r.graphName(), out)
}

// gatewayRouteForm is what the forms of a gateway route have in common.
type gatewayRouteForm struct {
	path    string // of the field
	host    *HostnameMatch
	port    uint32
	match   Match
	target  *GatewayRouteTarget
	rewrite Rewrite
}

// form is the one that is there.
func (s *GatewayRouteSpec) form() gatewayRouteForm {
	if g := s.GRPCRoute; g != nil {
		f := gatewayRouteForm{
			path: "spec.grpcRoute", host: g.Match.Hostname, port: g.Match.Port, target: &g.Action.Target,
			match: resolveGRPCMatch(&GRPCRouteMatch{Metadata: g.Match.Metadata, ServiceName: g.Match.ServiceName}),
		}
		if w := g.Action.Rewrite; w != nil {
			f.rewrite.KeepHost = w.Hostname.keeps()
		}
		return f
	}
	path, h := "spec.httpRoute", s.HTTPRoute
	if s.HTTP2Route != nil {
		path, h = "spec.http2Route", s.HTTP2Route
	}
	return gatewayRouteForm{
		path: path, host: h.Match.Hostname, port: h.Match.Port, target: &h.Action.Target,
		match: resolveGatewayMatch(&h.Match), rewrite: h.Action.Rewrite.resolve(h.Match.Prefix != ""),
	}
}

// gatewayOf finds the gateway of a route: the one that it names, else the only one.
func (b *builder) gatewayOf(r *Resource, s *GatewayRouteSpec) *Resource {
	if ref := s.VirtualGatewayRef; ref != nil {
		return b.referent(r, "spec.virtualGatewayRef", KindVirtualGateway, Reference{Namespace: ref.Namespace, Name: ref.Name})
	}
	// Deviates: App Mesh looks for the gateway whose namespaceSelector and
	// gatewayRouteSelector fit.
	all := r.gateways(b.graph.gatewaysOf(r.Mesh))
	switch len(all) {
	case 1:
		return all[0]
	case 0:
		b.dangling(r, "spec.virtualGatewayRef", MissingError{Kind: KindVirtualGateway}, "a virtual gateway", ": mesh "+r.Mesh+" has none")
	default:
		var names []string
		for _, g := range all {
			names = append(names, g.String())
		}
		b.fail(r, "spec.virtualGatewayRef", "%s must name its gateway: mesh %s has several, %s, and the selectors of gateways are not read", r, r.Mesh, strings.Join(names, " and "))
	}
	return nil
}

// gateways are those of its mesh that a route which names none may belong to: the one of
// its namespace, or all.
func (r *Resource) gateways(all []*Resource) []*Resource {
	same := slices.DeleteFunc(slices.Clone(all), func(g *Resource) bool { return g.Namespace != r.Namespace })
	if len(all) > 1 && len(same) == 1 {
		return same
	}
	return all
}

// GatewayOf is the gateway of a route that names none, among those of its mesh; nil where
// there is not one that it must be.
func (r *Resource) GatewayOf(all []*Resource) *Resource {
	s, ok := r.Spec.(*GatewayRouteSpec)
	if !ok || s.VirtualGatewayRef != nil {
		return nil
	}
	if of := r.gateways(all); len(of) == 1 {
		return of[0]
	}
	return nil
}

// JoinGateway names the gateway in a route that names none, so that a second one changes
// nothing for it, and reports whether it did. A gateway without a namespace cannot be named
// from within one. The route must not be shared yet.
func (r *Resource) JoinGateway(all []*Resource) bool {
	to := r.GatewayOf(all)
	if to == nil || to.Namespace == "" && r.Namespace != "" {
		return false
	}
	ref := &VirtualGatewayRef{Name: to.ObjectName}
	if to.Namespace != r.Namespace {
		ref.Namespace = to.Namespace
	}
	r.Spec.(*GatewayRouteSpec).VirtualGatewayRef = ref
	return true
}

// gatewaysOf lists a mesh's virtual gateways by name.
func (g *Graph) gatewaysOf(mesh string) []*Resource {
	var all []*Resource
	for at, r := range g.named.From(Name{Kind: KindVirtualGateway, Mesh: mesh}) {
		if at.Mesh != mesh || at.Kind != KindVirtualGateway {
			break
		}
		all = append(all, r)
	}
	return all
}

// resolve fills the defaults: the host becomes the service's name, and the prefix, if the
// route matches by one, "/".
func (w *HTTPGatewayRouteRewrite) resolve(byPrefix bool) Rewrite {
	var out Rewrite
	if byPrefix {
		out.Prefix = defaultPrefix
	}
	if w == nil {
		return out
	}
	out.KeepHost = w.Hostname.keeps()
	if w.Path != nil {
		out.Path = w.Path.Exact
	}
	switch p := w.Prefix; {
	case p == nil:
	case p.DefaultPrefix == switchedOff:
		out.Prefix = ""
	case p.Value != "":
		out.Prefix = p.Value
	}
	return out
}

const switchedOff = "DISABLED"

func (w *HostnameRewrite) keeps() bool { return w != nil && w.DefaultTargetHostname == switchedOff }

// resolveGatewayMatch: a route that says nothing of the path takes any.
func resolveGatewayMatch(m *HTTPGatewayRouteMatch) Match {
	out := resolveMatch(&HTTPRouteMatch{Headers: m.Headers, Method: m.Method, Path: m.Path, Prefix: m.Prefix, QueryParameters: m.QueryParameters})
	if m.Path == nil && m.Prefix == "" {
		out.Prefix = "/"
	}
	return out
}

// gateway makes a virtual gateway of its routes, which are there already.
func (b *builder) gateway(r *Resource) {
	s := r.Spec.(*VirtualGatewaySpec)
	n := &VirtualNode{Ref: r.ref(), Gateway: &Gateway{}, AccessLog: s.Logging.File(), LogFormat: s.Logging.format(), Observed: b.observed(r)}
	for i := range s.Listeners {
		l := &s.Listeners[i]
		out := Listener{Port: l.PortMapping.Port, Protocol: l.PortMapping.Protocol, TLS: resolveGatewayTLS(l.TLS)}
		if p := l.ConnectionPool; p != nil {
			out.Pool = resolvePool(&VirtualNodeConnectionPool{GRPC: p.GRPC, HTTP: p.HTTP, HTTP2: p.HTTP2})
		}
		n.Listeners = append(n.Listeners, out)
	}
	b.apply(r, n)
	var policy *ClientPolicy
	if s.BackendDefaults != nil {
		policy = s.BackendDefaults.ClientPolicy
	}
	called := map[Name]bool{}
	for from := range b.graph.referrers.Get(r.graphName()).All() {
		route, of := b.graph.gatewayRoutes.Get(from), b.graph.named.Get(from)
		if route == nil || of == nil { // another kind, or refused by its name
			continue
		}
		b.link(r, of)
		n.Gateway.Routes = append(n.Gateway.Routes, route)
		if !called[route.Service] {
			called[route.Service] = true
			n.Backends = append(n.Backends, Callee{Service: route.Service, TLS: resolveClientTLS(policy)})
		}
	}
	sortCallees(n.Backends)
	sortGatewayRoutes(n.Gateway.Routes)
	b.graph.nodes = b.graph.nodes.With(r.graphName(), n)
}

// ports are those of a gateway's listeners.
func (s *VirtualGatewaySpec) ports() []uint32 {
	var list []uint32
	for i := range s.Listeners {
		list = append(list, s.Listeners[i].PortMapping.Port)
	}
	return list
}

// sameToOthers: a gateway's ports are all that its routes look at.
func (s *VirtualGatewaySpec) sameToOthers(old any) bool {
	return slices.Equal(s.ports(), old.(*VirtualGatewaySpec).ports())
}

// resolveGatewayTLS: a gateway's callers are outside of the mesh. A listener without tls
// takes plaintext, and none asks for a certificate unless it says so.
func resolveGatewayTLS(t *GatewayListenerTLS) *TLS {
	if t == nil {
		return &TLS{Mode: TLSDisabled}
	}
	out := resolveTLS(&ListenerTLS{Mode: t.Mode, Certificate: t.Certificate})
	if out.AnyClient = t.Validation == nil; out.AnyClient {
		return out
	}
	out.ClientTrust = trustSecret(t.Validation.Trust.File, t.Validation.Trust.SDS)
	out.Clients = t.Validation.SubjectAlternativeNames.exact()
	return out
}

// sortGatewayRoutes puts routes in the order in which they are tried: by priority, 0
// first; then the more specific first: an exact host before a suffix before any, an exact
// path before a prefix, the longer before the shorter, more conditions before fewer; and
// last by name, so that the order of files says nothing.
func sortGatewayRoutes(routes []*GatewayRoute) {
	slices.SortFunc(routes, func(a, b *GatewayRoute) int {
		return cmp.Or(
			cmp.Compare(Route{Priority: a.Priority}.order(), Route{Priority: b.Priority}.order()),
			cmp.Compare(len(b.Host.Exact), len(a.Host.Exact)),
			cmp.Compare(len(b.Host.Suffix), len(a.Host.Suffix)),
			cmp.Compare(len(b.Match.Path), len(a.Match.Path)),
			cmp.Compare(len(b.Match.Prefix)+len(b.Match.PathRegex), len(a.Match.Prefix)+len(a.Match.PathRegex)),
			cmp.Compare(len(a.Match.PathRegex), len(b.Match.PathRegex)),
			cmp.Compare(b.Match.conditions(), a.Match.conditions()),
			cmp.Compare(a.Name, b.Name),
		)
	})
}

// behindGateways adds to what is made again the gateways of the routes that are put, gone
// or made again; and, where a gateway is put or gone, the routes of its mesh that name none.
func (g *Graph) behindGateways(before *Graph, again map[Name]bool, changed []Name) {
	affected := slices.Clone(changed)
	for name := range again {
		affected = append(affected, name)
	}
	for _, name := range changed {
		if name.Kind != KindVirtualGateway {
			continue
		}
		for at, route := range g.gatewayRoutes.From(Name{Kind: KindGatewayRoute, Mesh: name.Mesh}) {
			if at.Mesh != name.Mesh {
				break
			}
			if g.named.Get(at).Spec.(*GatewayRouteSpec).VirtualGatewayRef == nil {
				again[at], again[route.Gateway] = true, true
			}
		}
		for _, r := range g.gatewaysOf(name.Mesh) { // any of them may be theirs now
			again[r.graphName()] = true
		}
	}
	for _, name := range affected {
		for _, graph := range []*Graph{before, g} {
			if route := graph.gatewayRoutes.Get(name); route != nil {
				again[route.Gateway] = true
			}
		}
	}
	for name := range again {
		if g.named.Get(name) == nil {
			delete(again, name)
		}
	}
}
