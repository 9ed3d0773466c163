package server_test

import (
	"crypto/tls"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/test/invariants"
)

func TestTheAgentsListenerPrefersAPostQuantumKeyExchange(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		offered []tls.CurveID
		want    tls.CurveID
	}{{nil, tls.X25519MLKEM768}, {[]tls.CurveID{tls.X25519}, tls.X25519}, {[]tls.CurveID{tls.CurveP256}, tls.CurveP256}} {
		host := newHost(r)
		conn, err := (&tls.Dialer{Config: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the key exchange is under test
			CurvePreferences: c.offered, Certificates: []tls.Certificate{host.hostKey}, NextProtos: []string{"h2"},
		}}).DialContext(t.Context(), "tcp", r.addr.Agents)
		if err != nil {
			t.Errorf("offered %v: %v", c.offered, err)
			continue
		}
		if got := conn.(*tls.Conn).ConnectionState().CurveID; got != c.want {
			t.Errorf("offered %v: %v", c.offered, got)
		}
		_ = conn.Close() // nothing was asked
	}
}

func TestAMeshIsSentTheKeyExchangesThatItsServerRequires(t *testing.T) {
	r := newRig(t)
	r.halt()
	r.cfg.RequirePostQuantum = []string{"shop", "shpo"}
	r.start()
	r.apply(registry + shop)
	f := r.join("back").follow(nodeOf("shop", "orders", "127.0.0.9"), envoyTypes)
	f.await("its listener", func(s *ads.Set, _ *api.View) bool {
		for _, l := range s.Type(ads.ListenerType) {
			m, err := invariants.Decode(l)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range m.(*listenerv3.Listener).GetFilterChains() {
				var context tlsv3.DownstreamTlsContext
				if c.GetTransportSocket() == nil {
					continue
				}
				if err := c.GetTransportSocket().GetTypedConfig().UnmarshalTo(&context); err != nil {
					t.Fatal(err)
				}
				got := context.GetCommonTlsContext().GetTlsParams().GetEcdhCurves()
				return len(got) == 1 && got[0] == "X25519MLKEM768"
			}
		}
		return false
	})
	awaitFinding(t, r, "SIG050", "there is no mesh of this name")
}
