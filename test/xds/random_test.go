package xdstest_test

import (
	"encoding/json"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/invariants"
	"signet.example/test/parts"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

func TestEnvoyTakesWhatIsMadeOfRandomMeshes(t *testing.T) {
	envoy, views := parts.Envoy(t), 16
	if os.Getenv("SOAK") == "1" {
		views = 400
	}
	for seed := range views {
		text, nodes := xdstest.RandomMesh(rand.New(rand.NewSource(int64(seed))))
		in := xds.Input{
			Graph: graphtest.Graph(t, "random.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain, PolicyRevision: "r",
			Endpoints: func(node proxy.Ref, port uint32) []xds.Endpoint {
				if len(node.Name)%2 == 0 {
					return nil
				}
				return []xds.Endpoint{{Address: "127.0.0.1", Port: port, Healthy: true}}
			},
		}
		set, err := xds.Build(in, proxy.Node("shop", nodes[seed%len(nodes)]), xdstest.Shape)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		file := filepath.Join(t.TempDir(), "envoy.json")
		if err := os.WriteFile(file, asOneFile(t, set), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-c", file, "-l", "error").CombinedOutput()
		if err != nil {
			t.Fatalf("seed %d: %v: %s\n%s", seed, err, out, text)
		}
	}
}

// asOneFile is a view as a configuration that waits for nothing.
func asOneFile(t *testing.T, set *ads.Set) []byte {
	t.Helper()
	routes := map[string]*routev3.RouteConfiguration{}
	for _, r := range set.Type(ads.RouteType) {
		routes[r.Name] = decoded[*routev3.RouteConfiguration](t, r)
	}
	b := &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "test", Cluster: "test"},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{},
	}
	for _, r := range set.Type(ads.ClusterType) {
		c := decoded[*clusterv3.Cluster](t, r)
		if c.GetEdsClusterConfig() != nil {
			c.EdsClusterConfig, c.ClusterDiscoveryType = nil, &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
			c.LoadAssignment = decoded[*endpointv3.ClusterLoadAssignment](t, set.Get(ads.EndpointType, r.Name))
		}
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
	}
	for _, r := range set.Type(ads.ListenerType) {
		l := decoded[*listenerv3.Listener](t, r)
		for _, chain := range l.GetFilterChains() {
			last := chain.GetFilters()[len(chain.GetFilters())-1]
			var m hcmv3.HttpConnectionManager
			if !last.GetTypedConfig().MessageIs(&m) {
				continue // bytes have no routes
			}
			if err := last.GetTypedConfig().UnmarshalTo(&m); err != nil {
				t.Fatal(err)
			}
			m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes[m.GetRds().GetRouteConfigName()]}
			packed, err := anypb.New(&m)
			if err != nil {
				t.Fatal(err)
			}
			last.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
		}
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	fromFile(tree)
	if text, err = json.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	return text
}

// fromFile has secrets come from a file, since there is no stream here.
func fromFile(tree any) {
	switch tree := tree.(type) {
	case map[string]any:
		if tree["sdsConfig"] != nil {
			tree["sdsConfig"] = map[string]any{"resourceApiVersion": "V3", "pathConfigSource": map[string]any{"path": os.DevNull}}
		}
		for _, v := range tree {
			fromFile(v)
		}
	case []any:
		for _, v := range tree {
			fromFile(v)
		}
	}
}

func decoded[M any](t *testing.T, r *ads.Resource) M {
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
