package xdstest_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// curves are the key exchanges that an Envoy has counted, of listeners or clusters.
func (p *running) curves(side string) map[string]int64 {
	p.t.Helper()
	counted := map[string]int64{}
	for name, n := range p.envoy.Stats(p.t, `\.ssl\.curves\.`) {
		if at := strings.LastIndexByte(name, '.'); strings.HasPrefix(name, side+".") {
			counted[name[at+1:]] += n
		}
	}
	return counted
}

func TestAListenerPrefersAPostQuantumKeyExchangeAndOldClientsFallBack(t *testing.T) {
	in := startInbound(t, orders)
	svid := in.pki.svid(t, "spiffe://test.example/shop/front")
	for _, c := range []struct {
		offered []tls.CurveID
		want    tls.CurveID
	}{
		{nil, tls.X25519MLKEM768}, // Go's default
		{[]tls.CurveID{tls.X25519, tls.X25519MLKEM768, tls.CurveP256}, tls.X25519MLKEM768},
		{[]tls.CurveID{tls.X25519}, tls.X25519},
		{[]tls.CurveID{tls.CurveP256}, tls.CurveP256},
	} {
		state, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*svid}, CurvePreferences: c.offered})
		if refused != "" || state.CurveID != c.want {
			t.Errorf("offered %v: %v, refused %q", c.offered, state.CurveID, refused)
		}
	}
	if got := in.proxy.curves("listener"); got["X25519MLKEM768"] != 2 || got["X25519"] != 1 || got["P-256"] != 1 || len(got) != 3 {
		t.Errorf("Envoy counted %v", got)
	}
	if _, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*svid}, CurvePreferences: []tls.CurveID{tls.CurveP384}}); refused == "" {
		t.Error("P-384 was taken")
	}
}

func TestAMeshThatRequiresPostQuantumRefusesTheRest(t *testing.T) {
	stub, app, pki, bind := startStub(t), startApplication(t), newPKI(t), loopback()
	c := xdstest.Case{
		Name: "required", Mesh: "shop", Node: "orders",
		Input: xds.Input{
			Graph:       graphtest.Graph(t, "mesh.yaml", []byte(strings.ReplaceAll(strictCallee, "PORT", app.portText()))),
			TrustDomain: xdstest.TrustDomain, RequirePostQuantum: func(mesh string) bool { return mesh == "shop" },
		},
		Shape: proxy.Shape{Bind: bind, App: app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
	}
	in := &inbound{stub: stub, app: app, pki: pki, addr: net.JoinHostPort(c.Shape.Bind, app.portText()), proxy: startProxy(t, c, pki)}
	svid := pki.svid(t, "spiffe://test.example/shop/front")
	for _, old := range []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521} {
		if _, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*svid}, CurvePreferences: []tls.CurveID{old}}); refused == "" {
			t.Errorf("%v was taken", old)
		}
	}
	if state, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*svid}}); refused != "" || state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("%v, refused %q", state.CurveID, refused)
	}
	if got := in.proxy.curves("listener"); got["X25519MLKEM768"] != 1 || len(got) != 1 {
		t.Errorf("Envoy counted %v", got)
	}
}
