package ads_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/test/envoytest"
	"signet.example/test/parts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drainTime is how long Envoy drains a listener that changed.
const drainTime = 2 * time.Second

// world is a view, the server of it on a Unix socket, and an Envoy.
type world struct {
	t      *testing.T
	socket string
	mode   ads.Mode
	drain  time.Duration
	view   *ads.View
	envoy  *envoytest.Envoy

	grpc   *grpc.Server
	served sync.WaitGroup

	mu     sync.Mutex
	events []ads.Event
}

// View gives every node the one view.
func (w *world) View(context.Context, *corev3.Node) (*ads.View, error) { return w.view, nil }

// newWorld starts a server and an Envoy that waits for the first publication.
func newWorld(t *testing.T, sotw bool) *world {
	t.Helper()
	return newWorldOf(t, ads.Proxy, sotw)
}

// newWorldOf is newWorld with a view of that mode.
func newWorldOf(t *testing.T, mode ads.Mode, sotw bool) *world {
	t.Helper()
	parts.Envoy(t)
	dir, err := os.MkdirTemp("", "ads")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, mode: mode, socket: filepath.Join(dir, "xds.sock")}
	w.start()
	t.Cleanup(w.stop)
	w.envoy = envoytest.Start(t, envoytest.Config{NodeID: "n", Cluster: "c", ADS: w.socket, SotW: sotw, DrainTime: drainTime})
	return w
}

// start begins to serve a view that knows nothing of an earlier one.
func (w *world) start() {
	w.t.Helper()
	w.view = ads.NewView("v", w.mode)
	w.grpc = grpc.NewServer(ads.ServerOptions(nil)...)
	(&ads.Server{Views: w, Events: w.record, Drain: w.drain}).Register(w.grpc)
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	g := w.grpc
	w.served.Go(func() { _ = g.Serve(l) })
}

// stop ends the server at once, as a crash would.
func (w *world) stop() {
	w.grpc.Stop()
	w.served.Wait()
}

func (w *world) record(e ads.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// stuck lists the bounds that passed.
func (w *world) stuck() []ads.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []ads.Event
	for _, e := range w.events {
		if e.Kind == ads.Stuck {
			out = append(out, e)
		}
	}
	return out
}

// publish makes rs what Envoy is to have.
func (w *world) publish(rs ...*ads.Resource) {
	w.t.Helper()
	s, err := ads.NewSet(rs...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.view.Publish(s)
}

// settled waits until Envoy has acknowledged the routes as published, and has
// no clusters left that the set does not hold.
func (w *world) settled() {
	w.t.Helper()
	want := int64(len(w.view.Set().Type(ads.ClusterType)) + 1) // and the bootstrap's
	w.envoy.Wait(w.t, "Envoy has what was published", func() bool {
		for _, t := range []string{ads.RouteType, ads.ListenerType, ads.ClusterType} {
			for _, r := range w.view.Set().Type(t) {
				if _, n, _ := w.view.Acked(t, r.Name); n != 1 {
					return false
				}
			}
		}
		return w.envoy.Stats(w.t, "cluster_manager.active_clusters")["cluster_manager.active_clusters"] == want
	})
}

// must encodes a resource.
func must(t testing.TB, typeURL, name string, m proto.Message) *ads.Resource {
	t.Helper()
	r, err := ads.NewResource(typeURL, name, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// cluster is an EDS cluster and its endpoints, salted as R3 wants.
func cluster(t testing.TB, name string, b *envoytest.Backend, change func(*clusterv3.Cluster)) []*ads.Resource {
	t.Helper()
	c := &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: envoytest.ADS()},
	}
	if change != nil {
		change(c)
	}
	cr := must(t, ads.ClusterType, name, c)
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socketAddress("127.0.0.1", b.Port()),
		}}}},
	}}}
	return []*ads.Resource{cr, must(t, ads.EndpointType, name, cla).Salted(cr.Version)}
}

// checked adds an active health check to a cluster.
func checked(c *clusterv3.Cluster) {
	c.HealthChecks = []*corev3.HealthCheck{{
		Timeout: durationpb.New(2 * time.Second), Interval: durationpb.New(time.Second),
		UnhealthyThreshold: wrapperspb.UInt32(3), HealthyThreshold: wrapperspb.UInt32(1),
		HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{Path: envoytest.HealthPath}},
	}}
}

// listener is an HTTP listener on a port that the system chooses, with routes by RDS.
func listener(t testing.TB, name, routes string, change func(*listenerv3.Listener)) *ads.Resource {
	t.Helper()
	l := &listenerv3.Listener{
		Name: name, Address: socketAddress("127.0.0.1", 0),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "http",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoytest.Any(&hcmv3.HttpConnectionManager{
				StatPrefix: "in",
				RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
					RouteConfigName: routes, ConfigSource: envoytest.ADS(),
				}},
				HttpFilters: []*hcmv3.HttpFilter{{
					Name:       "router",
					ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoytest.Any(&routerv3.Router{})},
				}},
			})},
		}}}},
	}
	if change != nil {
		change(l)
	}
	return must(t, ads.ListenerType, name, l)
}

// routes sends everything to the clusters, by equal weights.
func routes(t testing.TB, name string, clusters ...string) *ads.Resource {
	t.Helper()
	weighted := &routev3.WeightedCluster{}
	for _, c := range clusters {
		weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: c, Weight: wrapperspb.UInt32(1)})
	}
	return must(t, ads.RouteType, name, &routev3.RouteConfiguration{
		Name: name,
		// Envoy must not look clusters up itself: that would refuse what the order is to make right.
		ValidateClusters:     wrapperspb.Bool(false),
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-envoy-flags", Value: "%RESPONSE_FLAGS%"}}},
		VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted},
			}},
		}}}},
	})
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// url is where the listener can be asked.
func (w *world) url(listener string) string {
	w.t.Helper()
	addr := ""
	w.envoy.Wait(w.t, "listener "+listener+" is bound", func() bool {
		addr = w.envoy.Listeners(w.t)[listener]
		return addr != ""
	})
	return "http://" + addr + "/"
}

// concat makes one list of several.
func concat(lists ...[]*ads.Resource) []*ads.Resource {
	var all []*ads.Resource
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
