package xds_test

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

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
