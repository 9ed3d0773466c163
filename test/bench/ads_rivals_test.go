//go:build bench

package bench

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/test/envoytest"
)

// adsConfig is one revision of what a proxy is to have, by type and name.
type adsConfig map[string]map[string]proto.Message

// newADSConfig has n clusters with endpoints, one listener, and one route
// configuration with n virtual hosts, each answering with the revision.
func newADSConfig(n, revision int, port uint32) adsConfig {
	c := adsConfig{ads.ClusterType: {}, ads.EndpointType: {}, ads.ListenerType: {}, ads.RouteType: {}}
	rc := &routev3.RouteConfiguration{Name: "r"}
	for i := range n {
		name := fmt.Sprintf("cluster-%04d", i)
		c[ads.ClusterType][name] = &clusterv3.Cluster{
			Name: name, ConnectTimeout: durationpb.New(1e9),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: envoytest.ADS()},
		}
		c[ads.EndpointType][name] = &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: loopback(port)},
			}}},
		}}}
		rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{Name: name, Domains: []string{name}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name}}},
		}}})
	}
	// The route that changes.
	rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{Name: "revision", Domains: []string{"revision"}, Routes: []*routev3.Route{{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200, Body: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: fmt.Sprint(revision)},
		}}},
	}}})
	c[ads.RouteType]["r"] = rc
	c[ads.ListenerType]["l"] = &listenerv3.Listener{
		Name: "l", Address: loopback(0),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "http",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoytest.Any(&hcmv3.HttpConnectionManager{
				StatPrefix:     "in",
				RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "r", ConfigSource: envoytest.ADS()}},
				HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoytest.Any(&routerv3.Router{})}}},
			})},
		}}}},
	}
	return c
}

func loopback(port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// rival is an ADS server that is measured: ours, or one of go-control-plane's caches.
type rival struct {
	options []grpc.ServerOption
	service discoveryv3.AggregatedDiscoveryServiceServer
	// publishTo gives a node its configuration. The linear cache has one for all.
	publishTo func(node string, c adsConfig) error
}

// publish is publishTo of the only node.
func (r rival) publish(c adsConfig) error { return r.publishTo("n", c) }

// newRival makes one by name: signet, snapshot, linear.
func newRival(ctx context.Context, name string) rival {
	switch name {
	case "signet":
		return newSignet()
	case "snapshot":
		return newSnapshot(ctx)
	default:
		return newLinear(ctx)
	}
}

// byNode are the views of nodes, which are published before they are asked for.
type byNode struct {
	mu    sync.Mutex
	views map[string]*ads.View
}

// View is a node's.
func (v *byNode) View(_ context.Context, node *corev3.Node) (*ads.View, error) {
	return v.of(node.GetId()), nil
}

func (v *byNode) of(node string) *ads.View {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.views[node] == nil {
		v.views[node] = ads.NewView(node, ads.Proxy)
	}
	return v.views[node]
}

func newSignet() rival {
	all := &byNode{views: make(map[string]*ads.View)}
	return rival{options: ads.ServerOptions(nil), service: &ads.Server{Views: all}, publishTo: func(node string, c adsConfig) error {
		var rs []*ads.Resource
		versions := make(map[string]string) // of clusters, which come first
		for _, typeURL := range []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType} {
			for name, m := range c[typeURL] {
				r, err := ads.NewResource(typeURL, name, m)
				if err != nil {
					return err
				}
				switch typeURL {
				case ads.ClusterType:
					versions[name] = r.Version
				case ads.EndpointType:
					r = r.Salted(versions[name])
				}
				rs = append(rs, r)
			}
		}
		s, err := ads.NewSet(rs...)
		if err == nil {
			all.of(node).Publish(s)
		}
		return err
	}}
}

func newSnapshot(ctx context.Context) rival {
	cache := cachev3.NewSnapshotCache(false, cachev3.IDHash{}, nil)
	version := 0
	return rival{service: serverv3.NewServer(ctx, cache, nil), publishTo: func(node string, c adsConfig) error {
		version++
		byType := make(map[string][]types.Resource)
		for typeURL, byName := range c {
			for _, m := range byName {
				byType[typeURL] = append(byType[typeURL], m)
			}
		}
		snap, err := cachev3.NewSnapshot(fmt.Sprint(version), byType)
		if err != nil {
			return err
		}
		return cache.SetSnapshot(ctx, node, snap)
	}}
}

func newLinear(ctx context.Context) rival {
	caches := make(map[string]cachev3.Cache)
	linear := make(map[string]*cachev3.LinearCache)
	for _, t := range []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType} {
		linear[t] = cachev3.NewLinearCache(t)
		caches[t] = linear[t]
	}
	mux := &cachev3.MuxCache{
		Classify:      func(r *cachev3.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cachev3.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        caches,
	}
	last := make(adsConfig)
	return rival{service: serverv3.NewServer(ctx, mux, nil), publishTo: func(_ string, c adsConfig) error {
		for _, t := range []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType} {
			update := make(map[string]types.Resource)
			for n, m := range c[t] {
				if !proto.Equal(m, last[t][n]) {
					update[n] = m
				}
			}
			if len(update) > 0 {
				if err := linear[t].UpdateResources(update, nil); err != nil {
					return err
				}
			}
		}
		last = c
		return nil
	}}
}

// serveUnix serves a rival on a Unix socket; stop ends it.
func (r rival) serveUnix(ctx context.Context, socket string) (stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	g := grpc.NewServer(r.options...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, r.service)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	return func() {
		g.Stop()
		wg.Wait()
	}, nil
}

// must fails a benchmark.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
