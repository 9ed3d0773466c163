package xds

import (
	"net/http"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
	"signet.example/proxy"
)

// ingressRoutes sends everything to the application, behind the stamp.
func (b *builder) ingressRoutes(name, cluster string, t mesh.Timeout) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: name,
		VirtualHosts: []*routev3.VirtualHost{{
			Name:                    "application",
			Domains:                 []string{"*"},
			TypedPerFilterConfig:    b.stamp(),
			RequestHeadersToRemove:  []string{proxy.HeaderByGateway},
			ResponseHeadersToRemove: proxyHeaders(),
			Routes: []*routev3.Route{{
				Name:  "application",
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: bounded(&routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				}, t)},
			}},
		}},
	}
}

// serviceRoutes are the routes of one service on one of its ports.
func (b *builder) serviceRoutes(s backend, p uint32) []*routev3.Route {
	var routes []*routev3.Route
	for _, r := range b.routesOf(s, p) {
		routes = append(routes, b.route(s, r))
	}
	return routes
}

// routesOf are App Mesh's routes of one service on one of its ports.
func (b *builder) routesOf(s backend, p uint32) []mesh.Route {
	if s.router == nil {
		target := mesh.WeightedTarget{Node: s.service.Node, Weight: 1, Port: p}
		// There is no route to declare a time-out on: the callee's own is as long as
		// an answer can take.
		l, _ := listenerOf(s.node, p)
		return []mesh.Route{{
			Name: s.service.Node.Name, Match: mesh.Match{Prefix: "/"}, Targets: []mesh.WeightedTarget{target}, Timeout: l.Timeout,
		}}
	}
	var routes []mesh.Route
	for _, r := range s.router.Routes {
		if !r.TCP && (r.Match.Port == 0 || r.Match.Port == p) {
			routes = append(routes, r)
		}
	}
	return routes
}

// route is one of App Mesh's routes.
func (b *builder) route(s backend, r mesh.Route) *routev3.Route {
	targets, upgrades, total := b.targets(s, r.Targets)
	if total == 0 {
		// Nothing can answer: say so, rather than let a later route take it.
		return &routev3.Route{
			Name: r.Name, Match: routeMatch(r.Match),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusServiceUnavailable}},
		}
	}
	action := bounded(&routev3.RouteAction{UpgradeConfigs: upgrades}, r.Timeout)
	if len(targets) == 1 {
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: targets[0].GetName()}
	} else {
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{
			WeightedClusters: &routev3.WeightedCluster{Clusters: targets},
		}
	}
	return b.repeating(&routev3.Route{Name: r.Name, Match: routeMatch(r.Match), Action: &routev3.Route_Route{Route: action}}, r.Retry)
}

// targets adds the clusters of a route, and their sum of weights. A target of
// weight 0 keeps its cluster, warm for the moment when it gets a share; one
// without a listener has nothing that could be called. No websocket goes where any
// target speaks HTTP/2.
func (b *builder) targets(s backend, ts []mesh.WeightedTarget) ([]*routev3.WeightedCluster_ClusterWeight, []*routev3.RouteAction_UpgradeConfig, uint32) {
	var (
		clusters []*routev3.WeightedCluster_ClusterWeight
		upgrades []*routev3.RouteAction_UpgradeConfig
		total    uint32
		index    = map[string]*wrapperspb.UInt32Value{}
	)
	for _, t := range ts {
		node := b.read.node(t.Node)
		l, ok := listenerOf(node, t.Port)
		if !ok {
			continue
		}
		name := b.egressCluster(s, node, l)
		total += t.Weight
		if multiplexed(l.Protocol) {
			upgrades = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: websocketUpgrade, Enabled: wrapperspb.Bool(false)}}
		}
		if w := index[name]; w != nil { // the same node twice: its shares add up
			w.Value += t.Weight
			continue
		}
		w := wrapperspb.UInt32(t.Weight)
		index[name] = w
		clusters = append(clusters, &routev3.WeightedCluster_ClusterWeight{Name: name, Weight: w})
	}
	return clusters, upgrades, total
}

func listenerOf(n *mesh.VirtualNode, p uint32) (mesh.Listener, bool) {
	for _, l := range n.Listeners {
		if l.Port == p {
			return l, true
		}
	}
	return mesh.Listener{}, false
}

// bounded sets the time that a request and a silent stream may take; 0 lifts
// the bound, to Envoy as to App Mesh.
func bounded(a *routev3.RouteAction, t mesh.Timeout) *routev3.RouteAction {
	a.Timeout = duration(t.PerRequest)
	a.IdleTimeout = duration(t.Idle)
	return a
}
