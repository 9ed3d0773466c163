package xdstest_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"signet.example/proxy"
	"signet.example/test/corpus"
)

// askWithAll sends every withheld header, and returns the names of those that the
// policy and the application saw.
func askWithAll(t *testing.T, in *inbound, addr string) (policy, application []string) {
	t.Helper()
	request := "GET /q HTTP/1.1\r\nHost: plain.shop.internal\r\nConnection: close\r\n"
	var names []string
	for _, w := range proxy.WithheldHeaders() {
		for _, name := range w.Headers {
			names = append(names, name)
			// Twice, and in different case.
			request += strings.ToUpper(name) + ": /admin\r\n" + http.CanonicalHeaderKey(name) + ": DELETE\r\n"
		}
	}
	r := raw(t, addr, request+"\r\n")
	arrived := in.app.take()
	if corpus.Status(r) != http.StatusOK || len(arrived) != 1 {
		t.Fatalf("%v, %d arrived", r, len(arrived))
	}
	for _, name := range names {
		if len(arrived[0].Header.Values(name)) > 0 {
			application = append(application, name)
		}
		for _, h := range in.stub.lastCheck().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if h.GetKey() == name && !slices.Contains(policy, name) {
				policy = append(policy, name)
			}
		}
	}
	return policy, application
}

func TestNoCallerSaysThatItsRequestIsAnother(t *testing.T) {
	in := startInbound(t, orders)
	if policy, application := askWithAll(t, in, in.addr); len(policy)+len(application) > 0 {
		t.Errorf("the policy saw %q, the application %q", policy, application)
	}
	// An application's own words to others are its own; whoever is called takes them away.
	if _, application := askWithAll(t, in, in.egress()); len(application) < 20 {
		t.Errorf("of what an application sends out only %q arrived", application)
	}
	for target, want := range map[string]int{"/q?a=1&b=2": 200, "/q?a=1%3Bb=2": 200, "/q?a=1;b=2": 400, "/q?a=1&amp;b=2": 400, "/q?;": 400} {
		r := raw(t, in.addr, "GET "+target+" HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
		if corpus.Status(r) != want || (want == 400) != (r.Header.Get("X-Signet-Denied") == "ambiguous") {
			t.Errorf("%s: %v, want %d", target, r, want)
		}
	}
	// The peer's address stands last, as Envoy saw it (for loopback: the host's).
	r := raw(t, in.addr, "GET /forwarded HTTP/1.1\r\nHost: orders\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n")
	arrived := in.app.take()
	last := arrived[len(arrived)-1].Header
	if corpus.Status(r) != 200 || !strings.HasPrefix(last.Get("X-Forwarded-For"), "192.0.2.1,") || last.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("%v, arrived with %v", r, last)
	}
}

func TestAMeshLetsThroughByNameWhatItsApplicationsNeed(t *testing.T) {
	for _, name := range []string{proxy.UnsafeMethodHeaders, proxy.UnsafeQuerySemicolons} {
		in := startInbound(t, strings.Replace(orders, "metadata: {name: shop}", "metadata: {name: shop, annotations: {signet.example/unsafe: \" , "+name+", "+name+"\"}}", 1))
		var want []string
		for _, w := range proxy.WithheldHeaders() {
			if w.Unsafe == name {
				want = w.Headers
			}
		}
		if policy, application := askWithAll(t, in, in.addr); !slices.Equal(policy, want) || !slices.Equal(application, want) {
			t.Errorf("%s: the policy saw %q, the application %q, want %q", name, policy, application, want)
		}
		code := map[bool]int{true: 200, false: 400}[name == proxy.UnsafeQuerySemicolons]
		if got := sendHTTP1(t, in.addr, "/q?a=1;b=2"); got != code {
			t.Errorf("%s: a query with a semicolon: %d, want %d", name, got, code)
		}
		if got := sendHTTP1(t, in.addr, "/q;a=1"); got != 400 {
			t.Errorf("%s: a path with a semicolon: %d", name, got)
		}
	}
}

func TestAMeshMayHaveNoHeadersOfEnvoys(t *testing.T) {
	const suppress = "---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {envoyHeaders: suppress}\n"
	for options, want := range map[string]bool{"": true, suppress: false} {
		in := startInbound(t, orders+options)
		r := raw(t, in.addr, "GET /q HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
		arrived := in.app.take()
		if corpus.Status(r) != http.StatusOK || len(arrived) != 1 {
			t.Fatalf("%v, %d arrived", r, len(arrived))
		}
		for whose, h := range map[string]http.Header{"the application": arrived[0].Header, "the caller": r.Header} {
			has := false
			for name := range h {
				has = has || strings.HasPrefix(name, "X-Envoy-")
			}
			if has != want {
				t.Errorf("%q: %s sees %v", options, whose, h)
			}
		}
		// Its application's own calls, too.
		if r := raw(t, in.egress(), "GET http://plain.shop.internal/q HTTP/1.1\r\nHost: plain.shop.internal\r\nConnection: close\r\n\r\n"); corpus.Status(r) != http.StatusOK || (r.Header.Get("X-Envoy-Upstream-Service-Time") != "") != want {
			t.Errorf("%q: the application sees %v", options, r)
		}
	}
}
