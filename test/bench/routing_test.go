//go:build bench

package bench

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
)

// TestBenchApplyToEnvoy measures from the begin of an apply, through store,
// server, agent and ADS, to the first request that a real Envoy answers by the
// new weights. Beside it stands a bare go-control-plane SnapshotCache with as
// many clusters and routes, whose Envoy routes to the very same two nodes: the
// probe is the same request over the same proxies in front of them.
func TestBenchApplyToEnvoy(t *testing.T) {
	var rows []row
	for _, size := range [][2]int{{10, 1}, {50, 4}} { // App Mesh's limit of a node's backends is 50
		rows = append(rows, applyToEnvoy(t, size[0], size[1])...)
	}
	report(t, "Routing: a weight changed → Envoy answers by it", rows)
}

// applyToEnvoy measures with n services that front calls, of so many routes each.
func applyToEnvoy(t *testing.T, n, each int) []row {
	t.Helper()
	const changes, byCommand = 20, 10
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front", "one", "two"}, Manifests: routingMesh(n, each)})
	defer w.Agent.Stop() // its Envoys make way for the next size
	bare := newWeightedSide(t, w, n, each)
	client := w.Client("front")
	ask := func() string { return served(t, client, "http://"+meshtest.HostOf("svc")+"/", "") }
	w.Await("both ways", 20*time.Second, func() error {
		if a, b := ask(), bare.ask(t); a != "one" || b != "one" {
			return fmt.Errorf("answers %q and %q", a, b)
		}
		return nil
	})
	manifest := filepath.Join(socketDir(t), "router.yaml")
	var signet, call, peer, command, probe, start []time.Duration
	for i := range changes {
		target := []string{"two", "one"}[i%2]
		router := weightsFor(target)
		if i < byCommand {
			must(t, os.WriteFile(manifest, []byte(router), 0o600))
			command = append(command, until(t, target, ask, func() {
				if out, code := w.CLI("apply", "-f", manifest); code != 0 {
					t.Fatalf("signet apply: %s", out)
				}
			}))
			w.Apply(weightsFor([]string{"one", "two"}[i%2])) // back, and settled before the next
			until(t, []string{"one", "two"}[i%2], ask, func() {})
			time.Sleep(20 * time.Millisecond)
			began := time.Now()
			w.CLI("version")
			start = append(start, time.Since(began))
		}
		signet = append(signet, until(t, target, ask, func() {
			began := time.Now()
			w.Apply(router)
			call = append(call, time.Since(began))
		}))
		time.Sleep(20 * time.Millisecond)
		peer = append(peer, until(t, target, func() string { return bare.ask(t) }, func() { bare.publish(t, target) }))
		time.Sleep(20 * time.Millisecond)
		began := time.Now()
		ask()
		probe = append(probe, time.Since(began))
	}
	ours, theirs, process := percentile(signet, 0.5), percentile(peer, 0.5), percentile(start, 0.5)
	ratio := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(theirs)) }
	what := fmt.Sprintf("%d clusters and %d routes", n, n*each)
	return []row{
		{"apply → served, p50 of 20, " + what, ms(ours), ms(theirs) + " bare SnapshotCache", ratio(ours), "≤ 2 ×"},
		{"the slowest of 20", ms(percentile(signet, 0.99)), ms(percentile(peer, 0.99)), "", ""},
		{"of that, until the apply call returns: checked, stored, durable, p50", ms(percentile(call, 0.5)), "", "", ""},
		{"by the command `signet apply -f`, process and all, p50 of 10", ms(percentile(command, 0.5)), ms(process) + " `signet version`", ratio(percentile(command, 0.5)), "≤ " + ms(2*theirs+process) + ": 2 × and a process"},
		{"one probe alone (two proxies, mTLS, authorization), p50, in all of the above", ms(percentile(probe, 0.5)), "", "", ""},
	}
}

// until makes a change and asks until the answer is the wanted one.
func until(t *testing.T, want string, ask func() string, change func()) time.Duration {
	t.Helper()
	began := time.Now()
	change()
	for ask() != want {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%s was not served in time", want)
		}
		time.Sleep(500 * time.Microsecond) // leaves the processors to what is measured
	}
	return time.Since(began)
}

// served asks once and tells which node answered; host, if any, replaces that of the URL.
func served(t *testing.T, client *http.Client, url, host string) string {
	t.Helper()
	a, err := meshtest.Do(t, hostClient{client, host}.http(), http.MethodGet, url)
	must(t, err)
	return a.Seen.Service
}

// hostClient sends another Host header than the URL's.
type hostClient struct {
	client *http.Client
	host   string
}

func (h hostClient) http() *http.Client {
	if h.host == "" {
		return h.client
	}
	c := *h.client
	c.Transport = h
	return &c
}

// RoundTrip implements http.RoundTripper.
func (h hostClient) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = h.host
	return h.client.Transport.RoundTrip(r)
}

// routingMesh has a service with two weighted nodes, and others that front may call, n in all, of
// so many routes each.
func routingMesh(n, each int) string {
	permissive := func(node string) string {
		return strings.Replace(meshtest.Strict("test.example", node), "STRICT", "PERMISSIVE", 1)
	}
	backends := []string{"svc"}
	docs := []string{
		meshtest.Mesh(), byRegistration(meshtest.VirtualNode("one", permissive("one"))), byRegistration(meshtest.VirtualNode("two", permissive("two"))),
		weightsFor("one"), meshtest.ServiceOfRouter("svc", "router"),
	}
	for i := range n - 1 {
		name := fmt.Sprintf("other-%03d", i)
		router := meshtest.Weighted(name, name, 1)
		for r := range each - 1 {
			router += fmt.Sprintf("    - name: r%d\n      httpRoute: {match: {prefix: /r%d}, action: {weightedTargets: [{virtualNodeRef: {name: %s}, weight: 1}]}}\n", r, r, name)
		}
		docs, backends = append(docs, byRegistration(meshtest.VirtualNode(name, "")), router, meshtest.ServiceOfRouter(name, name)), append(backends, name)
	}
	return meshtest.Join(append(docs, meshtest.VirtualNode("front", "", backends...))...)
}

// byRegistration leaves out how a node is found without an agent: its clusters
// get their endpoints by EDS then, like those of the other side.
func byRegistration(node string) string {
	begin := strings.Index(node, "  serviceDiscovery:\n")
	_, end, _ := strings.Cut(node[begin:], "hostname: ")
	_, end, _ = strings.Cut(end, "\n")
	return node[:begin] + end
}

func weightsFor(node string) string {
	if node == "one" {
		return meshtest.Weighted("router", "one", 100, "two", 0)
	}
	return meshtest.Weighted("router", "one", 0, "two", 100)
}

// weightedSide is the bare go-control-plane server with an Envoy that calls the
// mesh's nodes one and two.
type weightedSide struct {
	side
	world *meshtest.World
	each  int // routes of a service
}

func newWeightedSide(t *testing.T, w *meshtest.World, n, each int) *weightedSide {
	t.Helper()
	s := &weightedSide{world: w, each: each, side: side{n: n, rival: newSnapshot(t.Context()), client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}}}
	socket := filepath.Join(socketDir(t), "xds.sock")
	stop, err := s.rival.serveUnix(t.Context(), socket)
	must(t, err)
	t.Cleanup(stop)
	t.Cleanup(s.client.CloseIdleConnections)
	s.publish(t, "one")
	s.envoy = envoytest.Start(t, envoytest.Config{NodeID: "n", ADS: socket})
	s.envoy.WaitReady(t)
	s.envoy.Wait(t, "the listener is bound", func() bool {
		s.url = "http://" + s.envoy.Listeners(t)["l"] + "/"
		return s.url != "http:///"
	})
	return s
}

func (s *weightedSide) ask(t *testing.T) string { return served(t, s.client, s.url, "revision") }

// publish gives one of the nodes all of the weight.
func (s *weightedSide) publish(t *testing.T, node string) {
	t.Helper()
	c := newADSConfig(s.n-1, 0, 1)
	action := &routev3.WeightedCluster{}
	for _, name := range []string{"one", "two"} {
		weight := uint32(0)
		if name == node {
			weight = 100
		}
		action.Clusters = append(action.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: name, Weight: wrapperspb.UInt32(weight)})
		c[ads.ClusterType][name] = toNode(name, s.world.Nodes[name].Bind)
	}
	hosts := c[ads.RouteType]["r"].(*routev3.RouteConfiguration).VirtualHosts
	for _, h := range hosts[:len(hosts)-1] {
		for r := range s.each - 1 {
			more := proto.CloneOf(h.GetRoutes()[len(h.GetRoutes())-1])
			more.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/r%d", r)}}
			h.Routes = append([]*routev3.Route{more}, h.GetRoutes()...)
		}
	}
	hosts[len(hosts)-1].Routes[0].Action = &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: action},
	}}
	must(t, s.rival.publish(c))
}

// toNode is a cluster with the node's inbound listener.
func toNode(name, address string) *clusterv3.Cluster {
	a := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: meshtest.AppPort},
	}}}
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}}}},
		}}},
	}
}
