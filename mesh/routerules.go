package mesh

import (
	"fmt"
	"regexp"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

func (s *VirtualRouterSpec) check(ru *ruler) {
	ports := map[uint32]int{}
	for i, l := range s.Listeners {
		path := fmt.Sprintf("spec.listeners[%d].portMapping.port", i)
		if first, dup := ports[l.PortMapping.Port]; dup {
			ru.fail(path, "port %d is that of spec.listeners[%d] already", l.PortMapping.Port, first)
			continue
		}
		ports[l.PortMapping.Port] = i
	}
	names := map[string]int{}
	for i := range s.Routes {
		route, path := &s.Routes[i], fmt.Sprintf("spec.routes[%d]", i)
		if first, dup := names[route.Name]; dup {
			ru.fail(path+".name", "%q is the name of spec.routes[%d] already", route.Name, first)
		} else {
			names[route.Name] = i
		}
		ru.route(path, s.Listeners, route)
	}
}

func (ru *ruler) route(path string, listeners []VirtualRouterListener, r *RouteSpec) {
	switch {
	case r.HTTPRoute != nil:
		ru.httpRoute(path+".httpRoute", listeners, r.HTTPRoute)
	case r.HTTP2Route != nil:
		ru.httpRoute(path+".http2Route", listeners, r.HTTP2Route)
	case r.GRPCRoute != nil:
		ru.grpcRoute(path+".grpcRoute", listeners, r.GRPCRoute)
	case r.TCPRoute != nil:
		var port uint32
		if r.TCPRoute.Match != nil {
			port = r.TCPRoute.Match.Port
		}
		ru.matchPort(path+".tcpRoute.match.port", listeners, port)
		ru.targets(path+".tcpRoute", r.TCPRoute.Action.WeightedTargets)
	}
}

func (ru *ruler) httpRoute(path string, listeners []VirtualRouterListener, r *HTTPRoute) {
	// API model, HttpRouteMatch: path and prefix exclude each other, and one is needed.
	ru.pathOrPrefix(path+".match", r.Match.Path, r.Match.Prefix, true)
	ru.headers(path+".match.headers", r.Match.Headers)
	ru.queryParameters(path+".match.queryParameters", r.Match.QueryParameters)
	ru.matchPort(path+".match.port", listeners, r.Match.Port)
	ru.targets(path, r.Action.WeightedTargets)
	if p := r.RetryPolicy; p != nil && len(p.HTTPRetryEvents)+len(p.TCPRetryEvents) == 0 {
		ru.fail(path+".retryPolicy", "needs httpRetryEvents or tcpRetryEvents")
	}
}

func (ru *ruler) pathOrPrefix(path string, exact *HTTPPathMatch, prefix string, needed bool) {
	switch {
	case exact != nil && prefix != "":
		ru.fail(path, "takes either prefix or path, not both")
	case exact == nil && prefix == "" && needed:
		ru.fail(path, "needs prefix or path")
	}
	if exact != nil {
		ru.regex(path+".path.regex", exact.Regex)
	}
}

// queryParameters: Envoy takes names of at most 1,024 bytes.
func (ru *ruler) queryParameters(path string, list []QueryParameter) {
	for i, q := range list {
		if len(q.Name) > maxQueryName {
			ru.fail(fmt.Sprintf("%s[%d].name", path, i), "has %d bytes; must have 1 to %d", len(q.Name), maxQueryName)
		}
	}
}

const maxQueryName = 1024

func (ru *ruler) headers(path string, headers []HTTPRouteHeader) {
	for i, h := range headers {
		if h.Match != nil {
			ru.regex(fmt.Sprintf("%s[%d].match.regex", path, i), h.Match.Regex)
		}
		if h.Match != nil && h.Match.Range != nil && h.Match.Range.Start >= h.Match.Range.End {
			ru.fail(fmt.Sprintf("%s[%d].match.range", path, i), "start %d is not before end %d, which is exclusive", h.Match.Range.Start, h.Match.Range.End)
		}
	}
}

func (ru *ruler) grpcRoute(path string, listeners []VirtualRouterListener, r *GRPCRoute) {
	if r.Match.MethodName != "" && r.Match.ServiceName == "" {
		ru.fail(path+".match.methodName", "a method needs its serviceName")
	}
	ru.grpcName(path+".match.serviceName", r.Match.ServiceName)
	ru.grpcName(path+".match.methodName", r.Match.MethodName)
	ru.headers(path+".match.metadata", r.Match.Metadata)
	ru.matchPort(path+".match.port", listeners, r.Match.Port)
	ru.targets(path, r.Action.WeightedTargets)
	if p := r.RetryPolicy; p != nil && len(p.GRPCRetryEvents)+len(p.HTTPRetryEvents)+len(p.TCPRetryEvents) == 0 {
		ru.fail(path+".retryPolicy", "needs grpcRetryEvents, httpRetryEvents or tcpRetryEvents")
	}
}

// grpcName: services and methods become segments of a path.
func (ru *ruler) grpcName(path, name string) {
	if name == "" {
		return
	}
	if p := manifest.CheckText("segment", name); p != "" {
		ru.fail(path, "%s", p)
	}
}

// matchPort: needed where there are several listeners, and always one of them.
func (ru *ruler) matchPort(path string, listeners []VirtualRouterListener, port uint32) {
	if port == 0 {
		if len(listeners) > 1 {
			ru.fail(path, "is required where the router has several listeners")
		}
		return
	}
	for _, l := range listeners {
		if l.PortMapping.Port == port {
			return
		}
	}
	ru.fail(path, "the router has no listener on port %d", port)
}

// targets: shares of at most 100 in all (AM-weights), and not of 0,
// which would leave requests nowhere to go.
func (ru *ruler) targets(route string, targets []WeightedTargetSpec) {
	path := route + ".action.weightedTargets"
	var sum int64
	for i := range targets {
		ru.arn(fmt.Sprintf("%s[%d].virtualNodeARN", path, i), targets[i].VirtualNodeARN, proxy.VirtualNode)
		sum += targets[i].Weight
	}
	if sum < 1 || sum > 100 {
		ru.fail(path, "weights are %d in all; they must be 1 to 100", sum)
	}
}

func (s *GatewayRouteSpec) check(ru *ruler) {
	if r := s.GRPCRoute; r != nil {
		if r.Match.ServiceName == "" && r.Match.Hostname == nil && r.Match.Port == 0 { // the CRD's description; App Mesh took a port alone
			ru.fail("spec.grpcRoute.match", "needs serviceName, hostname or port")
		}
		ru.grpcName("spec.grpcRoute.match.serviceName", r.Match.ServiceName)
		ru.headers("spec.grpcRoute.match.metadata", r.Match.Metadata)
		ru.gatewayTarget("spec.grpcRoute", r.Action.Target)
	}
	for name, r := range map[string]*HTTPGatewayRoute{"httpRoute": s.HTTPRoute, "http2Route": s.HTTP2Route} {
		if r == nil {
			continue
		}
		path := "spec." + name
		ru.reserved(path+".match.prefix", r.Match.Prefix)
		if r.Match.Path != nil {
			ru.reserved(path+".match.path.exact", r.Match.Path.Exact)
		}
		if w := r.Action.Rewrite; w != nil {
			if w.Path != nil && r.Match.Path == nil {
				ru.fail(path+".action.rewrite.path", "is for a route that matches by path; use rewrite.prefix")
			}
			if w.Prefix != nil && r.Match.Prefix == "" {
				ru.fail(path+".action.rewrite.prefix", "is for a route that matches by prefix; use rewrite.path")
			}
			if w.Prefix != nil {
				ru.rewritten(path+".action.rewrite.prefix.value", w.Prefix.Value)
			}
			if w.Path != nil {
				ru.rewritten(path+".action.rewrite.path.exact", w.Path.Exact)
			}
		}
		ru.pathOrPrefix(path+".match", r.Match.Path, r.Match.Prefix, r.Match.Hostname == nil && r.Match.Port == 0)
		ru.headers(path+".match.headers", r.Match.Headers)
		ru.queryParameters(path+".match.queryParameters", r.Match.QueryParameters)
		ru.gatewayTarget(path, r.Action.Target)
	}
}

// rewritten: what is matched and decided on was normalised before, and what a rewrite makes
// of it is not again.
func (ru *ruler) rewritten(path, to string) {
	switch {
	case to == "":
	case to[0] != '/' || strings.ContainsAny(to, "?# \t"):
		ru.fail(path, "%q must start with / and have no query, fragment or space", manifest.Clip(to))
	case readTwoWays.MatchString(to):
		ru.fail(path, `%q must be a path as it is after normalisation: without //, segments . and .., \ and ;, also where they are escaped`, manifest.Clip(to))
	}
}

var readTwoWays = regexp.MustCompile(`(?i)//|/(?:\.|%2e){1,2}(?:/|$)|[\\;]|%2f|%5c|%3b`)

// reserved: App Mesh keeps these paths of gateways for itself (AM-crossfield).
func (ru *ruler) reserved(path, given string) {
	for _, own := range []string{"/aws-appmesh", "/aws-app-mesh"} {
		if strings.HasPrefix(given, own) {
			ru.fail(path, "%q: paths that begin with %s are reserved", manifest.Clip(given), own)
		}
	}
}

func (ru *ruler) gatewayTarget(route string, t GatewayRouteTarget) {
	ru.arn(route+".action.target.virtualService.virtualServiceARN", t.VirtualService.VirtualServiceARN, arnVirtualService)
}
