package xds_test

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"signet.example/ads"
	"signet.example/mesh"
	xdstest "signet.example/test/xds"
)

// A way in for everybody would have everybody say who the client is. App Mesh's gateways have no
// listeners of tcp, and none is made here whatever the mesh has.
func TestBehindTheProxyProtocolIsNoWayInForEverybody(t *testing.T) {
	ways := map[int]int{}
	for _, protocol := range []string{mesh.ProtocolHTTP, mesh.ProtocolHTTP2, mesh.ProtocolGRPC, mesh.ProtocolTCP} {
		for _, tls := range []*mesh.TLS{nil, {Mode: mesh.TLSDisabled}, {Mode: mesh.TLSPermissive, AnyClient: true}, {Mode: mesh.TLSStrict, AnyClient: true}, {Mode: mesh.TLSStrict}} {
			c := xdstest.Load(t, "testdata/announced")
			l := &c.Input.Graph.Nodes(c.Mesh)[0].Listeners[0]
			l.Protocol, l.TLS = protocol, tls
			chains := decodeAs[*listenerv3.Listener](t, build(t, c).Get(ads.ListenerType, "lds_ingress_127.0.0.2_8080")).GetFilterChains()
			ways[len(chains)]++
			for _, chain := range chains {
				if len(chain.GetFilterChainMatch().GetDirectSourcePrefixRanges()) == 0 {
					t.Errorf("%s, %+v: anybody may take the way %q", protocol, tls, chain.GetName())
				}
			}
		}
	}
	if len(ways) != 3 || ways[0] > 0 { // by TLS alone, from two load balancers, or both
		t.Errorf("the numbers of ways in are %v", ways)
	}
}
