package xds_test

import (
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// What a mesh declares, no way leads round authorization (A07).
func TestInvariantsHoldForRandomMeshes(t *testing.T) {
	for seed := range 500 {
		r := rand.New(rand.NewSource(int64(seed)))
		text, nodes := xdstest.RandomMesh(r)
		g := graphtest.Graph(t, fmt.Sprintf("seed-%d.yaml", seed), []byte(text))
		in := xds.Input{
			Graph: g, TrustDomain: xdstest.TrustDomain, PolicyRevision: "r",
			Endpoints: func(node proxy.Ref, port uint32) []xds.Endpoint {
				var es []xds.Endpoint
				for i := range (len(node.Name) + int(port)) % 3 {
					es = append(es, xds.Endpoint{Address: fmt.Sprintf("10.0.0.%d", i+1), Port: port, Healthy: i%2 == 0})
				}
				return es
			},
			Managed: func(node proxy.Ref) bool { return len(node.Name)%2 == 0 },
			Strict:  func(node proxy.Ref) bool { return strings.HasSuffix(node.Name, "1") },
		}
		if os.Getenv("SOAK") != "1" {
			nodes = []string{nodes[r.Intn(len(nodes))]}
		}
		for _, node := range nodes {
			set, err := xds.Build(in, proxy.Node("shop", node), xdstest.Shape)
			if err != nil {
				t.Fatalf("seed %d, %s: %v\n%s", seed, node, err, text)
			}
			for _, v := range append(invariants.CheckSet(set), dangling(t, set)...) {
				t.Errorf("seed %d, %s: %s", seed, node, v)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, text)
		}
	}
}

// dangling finds references to what the set does not have: Envoy would wait
// for it, or answer 503.
func dangling(t *testing.T, set *ads.Set) []string {
	t.Helper()
	var bad []string
	for _, r := range set.Type(ads.ClusterType) {
		c := decodeAs[*clusterv3.Cluster](t, r)
		if c.GetType() == clusterv3.Cluster_EDS && c.GetClusterType() == nil && set.Get(ads.EndpointType, c.GetName()) == nil {
			bad = append(bad, c.GetName()+" has no endpoint assignment")
		}
	}
	for _, r := range set.Type(ads.RouteType) {
		for _, h := range decodeAs[*routev3.RouteConfiguration](t, r).GetVirtualHosts() {
			for _, route := range h.GetRoutes() {
				if route.GetDirectResponse().GetStatus() == http.StatusServiceUnavailable {
					bad = append(bad, "a route leads nowhere: "+route.GetName())
				}
				names := []string{route.GetRoute().GetCluster()}
				for _, w := range route.GetRoute().GetWeightedClusters().GetClusters() {
					names = append(names, w.GetName())
				}
				for _, name := range names {
					if name != "" && set.Get(ads.ClusterType, name) == nil {
						bad = append(bad, "a route leads to "+name)
					}
				}
			}
		}
	}
	return bad
}

func decodeAs[M any](t *testing.T, r *ads.Resource) M {
	t.Helper()
	m, err := invariants.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	out, ok := m.(M)
	if !ok {
		t.Fatalf("%s is a %T", r.Name, m)
	}
	return out
}
