package xds_test

import (
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"signet.example/ads"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// wayOut is the listener of a golden case to which connections are redirected.
func wayOut(t *testing.T, dir string) *listenerv3.Listener {
	t.Helper()
	c := xdstest.Load(t, dir)
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	m, err := invariants.Decode(set.Get(ads.ListenerType, c.Shape.Egress.Listener()))
	if err != nil {
		t.Fatal(err)
	}
	return m.(*listenerv3.Listener)
}

func TestAPortWhoseServiceHasNoTargetsIsClosed(t *testing.T) {
	for dir, want := range map[string]string{
		"drained":  "explicit tcp-5432 closed-5672 closed-6379 tcp-6380",
		"captured": "explicit http-8080 http-50051 tcp-5432 closed-6379 platform",
	} {
		var names []string
		for _, c := range wayOut(t, "testdata/"+dir).GetFilterChains() {
			names = append(names, c.GetName())
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
}

func TestAConnectionThatIsPassedOnEndsWhenItIsIdle(t *testing.T) {
	closed := wayOut(t, "testdata/captured").GetFilterChains()
	for name, c := range map[string]*listenerv3.FilterChain{
		"passed": wayOut(t, "testdata/redirected").GetDefaultFilterChain(), "platform": closed[len(closed)-1],
	} {
		var p tcpv3.TcpProxy
		filters := c.GetFilters()
		if c.GetName() != name {
			t.Fatalf("the chain is %s, want %s", c.GetName(), name)
		}
		if err := filters[len(filters)-1].GetTypedConfig().UnmarshalTo(&p); err != nil {
			t.Fatal(err)
		}
		if got := p.GetIdleTimeout().AsDuration(); got != time.Hour {
			t.Errorf("%s: idle for %v, want an hour", name, got)
		}
	}
}
