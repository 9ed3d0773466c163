package effect

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/proxy"
)

// routesFor is a set with routes to one cluster for each host.
func routesFor(t *testing.T, hosts ...string) *ads.Set {
	t.Helper()
	rc := &routev3.RouteConfiguration{Name: "rds_egress_http_1"}
	for _, h := range hosts {
		vh := &routev3.VirtualHost{}
		if err := protojson.Unmarshal([]byte(`{"name": "`+h+`", "domains": ["`+h+`"], "routes": [{"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "c"}}]}`), vh); err != nil {
			t.Fatal(err)
		}
		rc.VirtualHosts = append(rc.VirtualHosts, vh)
	}
	body, err := proto.Marshal(rc)
	if err != nil {
		t.Fatal(err)
	}
	set, err := ads.NewSet(&ads.Resource{Type: ads.RouteType, Name: rc.GetName(), Version: string(body), Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestWhatTakesTooLongToForetellIsLeftOutAndCounted(t *testing.T) {
	before, after := routesFor(t, "a.internal", "b.internal"), routesFor(t, "a.internal", "c.internal")
	for left, want := range map[int]int{0: 2, 1000: 0} { // one host is gone, one is new
		c := New("127.0.0.2", true)
		c.left = left
		if _, err := c.Of(proxy.Node("m", "a"), before, after); err != nil || c.LeftOut() != want {
			t.Errorf("with %d routes to look at %d hosts are left out, want %d: %v", left, c.LeftOut(), want, err)
		}
	}
}
