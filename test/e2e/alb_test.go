package e2e

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"signet.example/test/alb"
	"signet.example/test/meshtest"
)

const albPolicy = `package signet.authz.shop

allow contains "users of the load balancer" if {
	input.jwt.email == "ana@shop.example"
	input.jwt.iss == "` + alb.Issuer + `"
}

headers["x-user"] := input.jwt.sub
`

// TestALoadBalancersUsersAreKnownByTheTokenThatItSigns has a load balancer that signs by keys
// of its region, which the server finds when the first token of each comes.
func TestALoadBalancersUsersAreKnownByTheTokenThatItSigns(t *testing.T) {
	const front, stranger = "127.200.0.7", "127.200.1.7"
	first, second := alb.NewKey(t), alb.NewKey(t)
	region := alb.NewRegion(t, first, second)
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"shop", "web"}, Policy: map[string]string{"shop.rego": albPolicy},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("shop", ""), meshtest.VirtualNode("web", "", "shop"), meshtest.ServiceOfNode("shop", "shop"),
			"apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: shop}\nspec: {listeners: [{port: 8080, ingress: [{name: alb, ranges: [127.200.0.0/24], healthCheckPath: /up}]}]}\n",
			"apiVersion: signet.example/v1alpha1\nkind: ALBIssuer\nmetadata: {name: front}\nspec: {issuer: \""+alb.Issuer+"\", clients: ["+alb.Client+"], signers: [\""+alb.ARN+"\"], ingress: [alb], keysURL: \""+region.URL+"\"}\n"),
	})
	call := func(from, path string, headers ...string) meshtest.Answer {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
		c := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}
		a, _ := meshtest.Do(t, c, http.MethodGet, "http://"+net.JoinHostPort(w.Nodes["shop"].Bind, "8080")+path, headers...)
		return a
	}
	token := func(k alb.Key, sub string) []string { return []string{"X-Amzn-Oidc-Data", k.Token(t, sub)} }
	eventually(t, 15*time.Second, "the load balancer's check passes", func() bool { return call(front, "/up").Status == http.StatusOK })

	// Before any key was wanted there is none, and the first request of each waits for it.
	var waited time.Duration
	eventually(t, 10*time.Second, "the first token is verified", func() bool {
		begun := time.Now()
		a := call(front, "/orders", token(first, "ana")...)
		waited = time.Since(begun)
		if a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable {
			t.Fatalf("%+v", a)
		}
		return a.Status == http.StatusOK
	})
	t.Logf("the request that found its key took %s", waited.Round(time.Millisecond))
	eventually(t, 10*time.Second, "that of the next key is verified", func() bool { return call(front, "/orders", token(second, "ana")...).Status == http.StatusOK })
	if one, all := region.Asked(first.ID); one != 1 || all > 3 { // one at apply, for nothing
		t.Errorf("%d fetches of one key, %d in all", one, all)
	}
	until := time.Now().Add(time.Minute)
	other := first.Header(until)
	other["signer"] = strings.Replace(alb.ARN, "/front/", "/attacker/", 1)
	for what, c := range map[string]struct {
		from    string
		headers []string
		want    int
	}{
		"another user":                         {front, token(first, "eve"), http.StatusForbidden},
		"nobody":                               {front, nil, http.StatusForbidden},
		"another load balancer of the region":  {front, []string{"X-Amzn-Oidc-Data", first.Sign(t, other, alb.Claims("ana", until))}, http.StatusUnauthorized},
		"without its padding":                  {front, []string{"X-Amzn-Oidc-Data", strings.ReplaceAll(first.Token(t, "ana"), "=", "")}, http.StatusUnauthorized},
		"a made up key":                        {front, token(alb.NewKey(t), "ana"), http.StatusServiceUnavailable},
		"read off, and sent by somebody else":  {stranger, token(first, "ana"), http.StatusForbidden},
		"the same as a bearer token":           {front, []string{"Authorization", "Bearer " + first.Token(t, "ana")}, http.StatusForbidden},
		"what the load balancer does not sign": {front, []string{"X-Amzn-Oidc-Identity", "ana"}, http.StatusForbidden},
	} {
		if a := call(c.from, "/orders", c.headers...); a.Status != c.want {
			t.Errorf("%s: %+v, want %d", what, a, c.want)
		}
	}
	// Its keys are remembered.
	region.Fail(http.StatusInternalServerError)
	w.KillServer()
	w.StartServer()
	eventually(t, 20*time.Second, "keys that cannot be fetched are found by check", func() bool {
		out, _ := w.CLI("check")
		return strings.Contains(out, "SIG014") && strings.Contains(out, "ALBIssuer front")
	})
	if a := call(front, "/orders", token(first, "ana")...); a.Status != http.StatusOK {
		t.Errorf("with the keys of before: %+v", a)
	}
}
