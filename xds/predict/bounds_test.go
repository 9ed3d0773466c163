package predict_test

import (
	"slices"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/xds/predict"
)

func TestPortsAreThoseAtWhichAHostHasRoutes(t *testing.T) {
	rc := &routev3.RouteConfiguration{}
	if err := protojson.Unmarshal([]byte(`{"virtualHosts": [
		{"name": "a", "domains": ["shop.internal", "shop.internal:8080", "shop.internal:8081"], "routes": [{"name": "x", "match": {"prefix": "/"}, "route": {"cluster": "c"}}]},
		{"name": "b", "domains": ["db.internal", "db.internal:5432"]}
	]}`), rc); err != nil {
		t.Fatal(err)
	}
	for authority, want := range map[string][]uint32{
		"shop.internal": {8080, 8081}, "SHOP.internal:99": {8080, 8081}, "db.internal": nil, "other.internal:8080": nil,
	} {
		if got := predict.Ports(rc, authority); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", authority, got, want)
		}
	}
}

func TestBoundsOfACalleeAreThoseOfItsListenerAndOfItsApplicationsCluster(t *testing.T) {
	c := &clusterv3.Cluster{}
	if err := protojson.Unmarshal([]byte(`{"circuitBreakers": {"thresholds": [{"maxConnections": 7, "maxPendingRequests": 2147483647, "maxRequests": 9}]}}`), c); err != nil {
		t.Fatal(err)
	}
	rc := routes(t, `{"name": "application", "match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "2s"}}`)
	if got, want := predict.BoundsOf(rc, c), (predict.Bounds{Timeout: 2 * time.Second, Connections: 7, Requests: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := predict.BoundsOf(nil, c), (predict.Bounds{Connections: 7, Requests: 9}); got != want {
		t.Errorf("of bytes: %+v, want %+v", got, want)
	}
}
