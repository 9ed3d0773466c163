package xds

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
)

// gatewayListener translates one port of a gateway: listener and routes. What it is
// behind is the same as a virtual node's; there is no application beside it.
func (b *builder) gatewayListener(l mesh.Listener, routes []*routev3.Route) {
	name := ingressListenerName(b.shape.Bind, l.Port)
	b.section(name, nil, func() { b.add(ads.ListenerType, name, b.ingressListener(name, l)) })
	at := ingressRouteName(l)
	b.add(ads.RouteType, at, &routev3.RouteConfiguration{
		Name: at,
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "gateway", Domains: []string{"*"}, TypedPerFilterConfig: b.stamp(), Routes: routes, RetryPolicy: b.sharedRetry(),
			RequestHeadersToAdd: []*corev3.HeaderValueOption{header(proxy.HeaderByGateway, "true")},
		}},
	})
}

// gatewayRoutes are the routes of one of a gateway's listeners: for each of the gateway's,
// in order, those of its service, narrowed to what the gateway's takes. So one proxy
// decides at once what App Mesh's did by sending each request to itself
// (docs/decisions/052).
func (b *builder) gatewayRoutes(l mesh.Listener) []*routev3.Route {
	services := map[mesh.Name]backend{}
	for _, s := range b.plainFirst() {
		services[s.service.GraphName()] = s
	}
	list := gatewayHealth(l)
	for _, r := range b.node.Gateway.Routes {
		if r.Port != 0 && r.Port != l.Port {
			continue
		}
		s := services[r.Service]
		of, ok := b.servicePort(r, s)
		if !ok {
			return nil
		}
		for _, w := range waysOf(r) {
			list = append(list, b.way(r, w, s, of)...)
			if len(list) > mostComposed {
				b.fail(fmt.Errorf("the routes of the gateway's listener %d lead to so many routes of their services that they are more than %d together: fewer gateway routes, or services with fewer routes", l.Port, mostComposed))
				return nil
			}
		}
	}
	// Envoy asks nobody about a request without a route: who may not call would learn
	// which routes there are.
	return append(list, notFound("no-route", mesh.Match{Prefix: "/"}))
}

// gatewayHealth are the routes by which a gateway itself answers the load balancers before it:
// there is no application of its own. Whoever else asks is decided on as ever.
func gatewayHealth(l mesh.Listener) []*routev3.Route {
	var list []*routev3.Route
	for _, in := range l.Ingress {
		if in.HealthCheckPath == "" {
			continue
		}
		list = append(list, &routev3.Route{
			Name: "health-check-" + in.Name, Match: routeMatch(mesh.Match{Path: in.HealthCheckPath, Method: http.MethodGet}),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusOK}},
		})
	}
	return list
}

// mostComposed bounds the routes of one listener: they are a product, each factor of which is
// sane. App Mesh had 10 routes of a gateway and 50 of a router, which come to 2,000.
const mostComposed = 5000

// notFound answers what has no service.
func notFound(name string, m mesh.Match) *routev3.Route {
	return &routev3.Route{
		Name: name, Match: routeMatch(m),
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusNotFound}},
	}
}

// servicePort is the port of the service that a gateway's route means, 0 of a service
// that has none.
func (b *builder) servicePort(r *mesh.GatewayRoute, s backend) (uint32, bool) {
	ports := portsOf(s)
	switch {
	case len(ports) == 0:
		return 0, true
	case r.ServicePort == 0:
		return mesh.Portless(ports), true
	case !slices.Contains(ports, r.ServicePort):
		b.fail(fmt.Errorf("gateway route %q: its target is port %d of virtual service %q, which has %v", r.Name, r.ServicePort, s.service.Name, ports))
		return 0, false
	}
	return r.ServicePort, true
}

// way is how a gateway's route takes requests: by a match, and what becomes of the path.
type way struct {
	from   mesh.Match
	prefix string // what from.Prefix becomes, "" for itself
	path   string // what the whole path becomes, "" for none
}

// waysOf are two where a prefix without a slash at its end becomes one with it: /x/y does
// not become //y (AM-gateway).
func waysOf(r *mesh.GatewayRoute) []way {
	w := way{from: r.Match, path: r.Rewrite.Path}
	if r.Rewrite.Prefix != r.Match.Prefix {
		w.prefix = r.Rewrite.Prefix
	}
	if !strings.HasSuffix(w.prefix, "/") || strings.HasSuffix(r.Match.Prefix, "/") {
		return []way{w}
	}
	slash := w
	slash.from.Prefix += "/"
	return []way{slash, w}
}

// stray answers what would become a path that nobody has looked at: paths are normalised
// before they are matched, and /x../y is normal; where /x becomes /v/ it would go on as
// /v/../y, for which no route and no policy was asked.
func (w way) stray(name string) []*routev3.Route {
	if !strings.HasSuffix(w.prefix, "/") || strings.HasSuffix(w.from.Prefix, "/") {
		return nil
	}
	r := notFound(name, w.from)
	r.Match.Headers = append(r.Match.Headers, headerMatch(mesh.HeaderMatch{
		Name: ":path", Regex: regexp.QuoteMeta(w.from.Prefix) + `\.{1,2}(?:[/?].*)?`,
	}))
	return []*routev3.Route{r}
}

// way adds what a service does with the requests that come one way. Those that none of its
// routes takes are answered here: a later route of the gateway is not theirs.
func (b *builder) way(r *mesh.GatewayRoute, w way, s backend, of uint32) []*routev3.Route {
	list := w.stray(r.Name)
	all := false // is taken
	if of != 0 {
		for _, route := range b.routesOf(s, of) {
			on, ok, err := w.then(route.Match)
			if err != nil {
				b.fail(fmt.Errorf("gateway route %q leads to route %q of virtual service %q: %w", r.Name, route.Name, s.service.Name, err))
				return nil
			}
			if !ok {
				continue // nothing that comes this way is for it
			}
			all = all || len(on.path) == 0 && reflect.DeepEqual(on.match, w.from)
			if err := on.fits(); err != nil {
				b.fail(fmt.Errorf("gateway route %q leads to route %q of virtual service %q: %w", r.Name, route.Name, s.service.Name, err))
				return nil
			}
			route.Name, route.Match = r.Name+"/"+route.Name, on.match
			made := b.route(s, route)
			made.Match.Headers = append(made.Match.Headers, on.path...)
			if a := made.GetRoute(); a != nil {
				a.PrefixRewrite, a.RegexRewrite = on.prefix, on.regex
				if !r.Rewrite.KeepHost {
					a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: s.service.Name}
				}
			}
			list = append(list, made)
		}
	}
	if !all {
		list = append(list, notFound(r.Name, w.from))
	}
	for _, made := range list {
		made.Match.Headers = append(made.Match.Headers, ofHost(r.Host)...)
	}
	return list
}

// ofHost narrows a route to a host. Ports and a dot at the end are gone by then.
func ofHost(h mesh.HostMatch) []*routev3.HeaderMatcher {
	var s *matcherv3.StringMatcher
	switch {
	case h.Exact != "":
		s = exact(h.Exact)
	case h.Suffix != "":
		s = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: h.Suffix}}
	default:
		return nil
	}
	s.IgnoreCase = true
	return []*routev3.HeaderMatcher{{Name: ":authority", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: s}}}
}

// onward is what a request that comes one way must be to be taken by a route of the
// service, and how its path is written anew.
type onward struct {
	match  mesh.Match
	path   []*routev3.HeaderMatcher // what match cannot say of the path beside its own
	prefix string                   // in the place of what match has, "" for itself
	regex  *matcherv3.RegexMatchAndSubstitute
}

// fits reports whether Envoy takes the expressions that were made of two.
func (o onward) fits() error {
	made := []string{o.match.PathRegex, o.regex.GetPattern().GetRegex()}
	for _, h := range o.path {
		made = append(made, h.GetStringMatch().GetSafeRegex().GetRegex())
	}
	for _, expression := range made {
		if why := mesh.RegexProblem(expression); expression != "" && why != "" {
			return fmt.Errorf("together they ask for the path %q, which %s", expression, why)
		}
	}
	return nil
}

// then is what comes w's way and is then taken by m, which compares the path as w writes
// it; false if nothing is.
func (w way) then(m mesh.Match) (onward, bool, error) {
	both, ok := w.from.And(m)
	if !ok {
		return onward{}, false, nil
	}
	on := onward{match: both}
	switch {
	case w.path != "":
		on.setPath(w.from)
		on.prefix = w.path // Envoy writes the whole path anew, since all of it is matched
		return on, m.PathMatch().Takes(w.path), nil
	case w.prefix != "":
		return w.thenByPrefix(on, m)
	}
	return on.alsoPath(w.from, m)
}

// thenByPrefix: what m sees is the rest of the path behind w.prefix.
func (w way) thenByPrefix(on onward, m mesh.Match) (onward, bool, error) {
	switch {
	case m.PathRegex != "":
		rest, ok := behind(m.PathRegex, w.prefix)
		if !ok {
			return onward{}, false, fmt.Errorf("the prefix %q becomes %q, behind which the expression %q cannot be looked for; let the expression begin with %[2]q, or switch the prefix's rewrite off", w.from.Prefix, w.prefix, m.PathRegex)
		}
		on.setPath(mesh.Match{PathRegex: regexp.QuoteMeta(w.from.Prefix) + rest})
		on.regex = &matcherv3.RegexMatchAndSubstitute{
			Pattern:      &matcherv3.RegexMatcher{Regex: "^" + regexp.QuoteMeta(w.from.Prefix)},
			Substitution: strings.ReplaceAll(w.prefix, `\`, `\\`),
		}
		return on, true, nil
	case m.Path != "":
		rest, ok := strings.CutPrefix(m.Path, w.prefix)
		on.setPath(mesh.Match{Path: w.from.Prefix + rest})
		on.prefix = m.Path
		return on, ok, nil
	case strings.HasPrefix(w.prefix, m.Prefix):
		on.setPath(w.from)
		on.prefix = w.prefix
		return on, true, nil
	}
	rest, ok := strings.CutPrefix(m.Prefix, w.prefix)
	on.setPath(mesh.Match{Prefix: w.from.Prefix + rest})
	on.prefix = m.Prefix
	return on, ok, nil
}

func (o *onward) setPath(m mesh.Match) {
	o.match.Path, o.match.Prefix, o.match.PathRegex = m.Path, m.Prefix, m.PathRegex
}

// alsoPath is for a path that stays as it is: both must take it.
func (o onward) alsoPath(a, b mesh.Match) (onward, bool, error) {
	switch {
	case a.Path != "":
		o.setPath(a)
		return o, b.PathMatch().Takes(a.Path), nil
	case b.Path != "":
		o.setPath(b)
		return o, a.PathMatch().Takes(b.Path), nil
	case a.PathRegex == "" && b.PathRegex == "":
		if len(a.Prefix) < len(b.Prefix) {
			a, b = b, a
		}
		o.setPath(a)
		return o, strings.HasPrefix(a.Prefix, b.Prefix), nil
	case a.PathRegex != "":
		a, b = b, a
	}
	// b is an expression, a is either.
	o.setPath(b)
	also := mesh.HeaderMatch{Name: ":path", Prefix: a.Prefix}
	if a.PathRegex != "" {
		also.Regex = beforeQuery(a.PathRegex) // the header has the query, too
	}
	o.path = append(o.path, headerMatch(also))
	return o, true, nil
}
