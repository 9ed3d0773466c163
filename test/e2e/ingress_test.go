package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// TestALoadBalancerIsKnownByItsAddress calls a service in plaintext as a load balancer does: its
// health check passes without a rule, what a rule has for it passes, and neither gives anybody
// else anything.
func TestALoadBalancerIsKnownByItsAddress(t *testing.T) {
	const alb, stranger = "127.200.0.7", "127.200.1.7"
	w := meshtest.Start(t, meshtest.Options{
		Nodes:     []string{"shop"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("shop", ""), meshtest.ServiceOfNode("shop", "shop")),
		Policy:    map[string]string{"orders.rego": "package signet.authz\n\nallow contains \"customers\" if {\n\tinput.source.ingress == \"alb\"\n\tinput.request.method == \"GET\"\n\tinput.request.segments[0] == \"orders\"\n}\n"},
	})
	options := func(listener string) string {
		return "apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: shop}\nspec: {listeners: [{port: 8080, " + listener + "}]}\n"
	}
	call := func(from, method, path string) int {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
		c := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}
		a, err := meshtest.Do(t, c, method, "http://"+net.JoinHostPort(w.Nodes["shop"].Bind, "8080")+path)
		if err != nil {
			return 0
		}
		return a.Status
	}
	w.Apply(options("ingress: [{name: alb, ranges: [127.200.0.0/24], healthCheckPath: /up}]"))
	eventually(t, 15*time.Second, "the load balancer's check passes", func() bool { return call(alb, http.MethodGet, "/up") == http.StatusOK })
	for _, c := range []struct {
		from, method, path string
		want               int
	}{
		{alb, http.MethodGet, "/orders", http.StatusOK},
		{alb, http.MethodPost, "/orders", http.StatusForbidden},
		{alb, http.MethodPost, "/up", http.StatusForbidden},
		{alb, http.MethodGet, "/up/", http.StatusForbidden},
		{stranger, http.MethodGet, "/up", http.StatusForbidden},
		{stranger, http.MethodGet, "/orders", http.StatusForbidden},
	} {
		if got := call(c.from, c.method, c.path); got != c.want {
			t.Errorf("%s %s from %s: %d, want %d", c.method, c.path, c.from, got, c.want)
		}
	}
	eventually(t, 5*time.Second, "its denials are found by its name", func() bool {
		return len(decisionsOf(t, w, "--denied", "--from", "ingress/alb", "--to", "test/shop")) > 0
	})
	// Who was the load balancer is anybody, once it is not.
	w.Apply(options("ingress: [{name: alb, ranges: [127.200.9.0/24], healthCheckPath: /up}]"))
	eventually(t, 15*time.Second, "another address is not the load balancer", func() bool { return call(alb, http.MethodGet, "/up") == http.StatusForbidden })
}

// TestConnectionsOfALoadBalancerAreKnownByItsAddress is the same of bytes, as an NLB before a
// database has them: with the port's TLS managed, so that callers of the mesh come by mTLS as
// before, and without any.
func TestConnectionsOfALoadBalancerAreKnownByItsAddress(t *testing.T) {
	const nlb, stranger = "127.200.0.7", "127.200.1.7"
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "store"}, Policy: map[string]string{"store.rego": `package signet.authz.store

allow contains "customers' connections" if {
	input.source.ingress == "nlb"
	object.keys(input.source) == {"ingress"}
	input.connection.port == 6379
}

allow contains "web speaks to the store" if input.source.virtual_node == "web"
`},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "store"), storeNode(""), meshtest.ServiceOfNode("store", "store")),
	})
	app := startSpeaker(t, w.Nodes["store"].App)
	options := func(ranges string) string {
		return fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: store}\nspec: {listeners: [{port: %d, ingress: [{name: nlb, ranges: [%s]}]}]}\n", storePort, ranges)
	}
	at := net.JoinHostPort(w.Nodes["store"].Bind, fmt.Sprint(storePort))
	from := func(addr string) error {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0))}
		c, err := d.DialContext(t.Context(), "tcp", at)
		if err != nil {
			return err
		}
		got, err := exchange(c, "store", len("hello store"))
		if err == nil && got != "hello store" {
			err = fmt.Errorf("it answered %q", got)
		}
		return errors.Join(err, c.Close())
	}
	allowed := func(what string) {
		t.Helper()
		w.Await(what, 30*time.Second, func() error { return from(nlb) })
	}
	refused := func(what, addr string) {
		t.Helper()
		came := app.came.Load()
		if err := from(addr); err == nil || app.came.Load() != came {
			t.Errorf("%s: %v, and the store was connected to %d times", what, err, app.came.Load()-came)
		}
	}
	w.Apply(options("127.200.0.0/24"))
	allowed("the load balancer's connections pass")
	refused("from another address", stranger)
	w.Await("callers of the mesh come by mTLS as before", 30*time.Second, func() error { return hungUp(speak(wayTo(t, w, "web"))) })
	eventually(t, 10*time.Second, "its connections are found by its name", func() bool {
		return len(decisionsOf(t, w, "--from", "ingress/nlb", "--to", "test/store")) > 0
	})

	w.Apply(storeNode(", tls: {mode: DISABLED, certificate: {sds: {secretName: \"spiffe://test.example/test/store\"}}}"))
	allowed("without TLS they pass as well")
	refused("from another address, without TLS", stranger)

	// Who was the load balancer is anybody, once it is not.
	w.Apply(options("127.200.9.0/24"))
	eventually(t, 30*time.Second, "another address is not the load balancer", func() bool { return from(nlb) != nil })
	refused("an address that is not the load balancer's any more", nlb)
}
