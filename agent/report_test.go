package agent

import (
	"testing"

	"signet.example/agent/envoy"
	"signet.example/agent/relay"
	"signet.example/api"
)

func TestOnlyAProxyThatServesIsReady(t *testing.T) {
	for state, ready := range map[api.ProxyStatus_State]bool{api.ProxyStatus_READY: true, api.ProxyStatus_DRAINING: false, api.ProxyStatus_STARTING: false} {
		r := &reporter{relay: &relay.Relay{}, proxyStatus: func() []envoy.Status { return []envoy.Status{{Proxy: envoy.Proxy{Name: "web"}, State: state}} }}
		if r.Ready("web") != ready || r.Ready("other") {
			t.Errorf("%s: %v", state, r.Ready("web"))
		}
	}
}
