package xdstest_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/test/corpus"
	"signet.example/test/invariants"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func TestEveryRefusalOfARequestHasAnIDACauseAndARecord(t *testing.T) {
	in := startInbound(t, orders)
	const end = "\r\nConnection: close\r\n\r\n"
	upgradeTo := func(what string) string {
		return "GET /q HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: " + what + "\r\n\r\n"
	}
	for name, c := range map[string]struct {
		request string
		code    int
		class   string
	}{
		"path":             {"GET /a;b HTTP/1.1\r\nHost: orders" + end, 400, "ambiguous"},
		"escaped slash":    {"GET /a%2fb HTTP/1.1\r\nHost: orders" + end, 400, "ambiguous"},
		"host":             {"GET /q HTTP/1.1\r\nHost: a,b" + end, 400, "ambiguous"},
		"underscore":       {"GET /q HTTP/1.1\r\nHost: orders\r\nx_role: a" + end, 400, "ambiguous"},
		"two lengths":      {"POST /q HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nContent-Length: 5" + end, 400, "ambiguous"},
		"no host":          {"GET /q HTTP/1.1" + end, 400, "malformed"},
		"method":           {"G(ET /q HTTP/1.1\r\nHost: orders" + end, 400, "malformed"},
		"NUL":              {"GET /q HTTP/1.1\r\nHost: orders\r\nx-a: a\x00b" + end, 400, "malformed"},
		"HTTP/1.0":         {"GET /q HTTP/1.0\r\n\r\n", 426, "malformed"},
		"OPTIONS of all":   {"OPTIONS * HTTP/1.1\r\nHost: orders.internal\r\n\r\n", 404, "malformed"},
		"large headers":    {"GET /q HTTP/1.1\r\nHost: orders\r\nx-a: " + strings.Repeat("a", 70<<10) + end, 431, "malformed"},
		"many headers":     {"GET /q HTTP/1.1\r\nHost: orders" + strings.Repeat("\r\nx-a: a", 120) + end, 431, "malformed"},
		"upgrade":          {upgradeTo("tunnel"), 403, "upgrade"},
		"upgrades":         {upgradeTo("TLS/1.2, tunnel"), 403, "upgrade"},
		"CONNECT":          {"CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n", 400, "ambiguous"}, // it has no path
		"agent's own":      {"GET /admin HTTP/1.1\r\nHost: orders" + end, 403, "policy"},
		"no such upstream": {"GET /reroute HTTP/1.1\r\nHost: orders" + end, 500, "error"},
	} {
		for way, addr := range map[string]string{"in": in.addr, "out": in.egress()} {
			code, class := c.code, c.class
			switch {
			case way == "out" && (class == "policy" || class == "error"):
				code, class = 404, "undeclared"
			case way == "out" && class == "upgrade":
				code, class = 404, "undeclared" // no route was found to ask about upgrades
			}
			r := raw(t, addr, c.request)
			if corpus.Status(r) != code || r.Header.Get("X-Signet-Denied") != class {
				t.Errorf("%s, %s: %v, want %d %s", name, way, r, code, class)
				continue
			}
			id := r.Header.Get("X-Signet-Decision-Id")
			if class == "policy" {
				continue // the agent has the record
			}
			if !uuid.MatchString(id) || r.Header.Get(corpus.BodyHeader) != "denied: "+class+", decision "+id+"\n" {
				t.Errorf("%s, %s: id %q, body %q", name, way, id, r.Header.Get(corpus.BodyHeader))
			}
			eventually(t, name+", "+way+": the record of "+id, func() bool { return strings.Contains(in.proxy.envoy.Log(), id) })
		}
	}
	if arrived := in.app.take(); len(arrived) > 0 {
		t.Errorf("%d refused requests arrived", len(arrived))
	}
}

// A request has 10 s for its headers; here a short time, so that nobody waits.
func TestARequestThatComesTooSlowlyIsRefusedWithAnID(t *testing.T) {
	in := startInboundEdited(t, orders, func(r *ads.Resource) *ads.Resource {
		if r.Type != ads.ListenerType {
			return r
		}
		m, err := invariants.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		l := m.(*listenerv3.Listener)
		for _, chain := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
			for _, f := range chain.GetFilters() {
				var manager hcmv3.HttpConnectionManager
				if f.GetTypedConfig().UnmarshalTo(&manager) != nil {
					continue
				}
				if manager.GetRequestHeadersTimeout().AsDuration() != 10*time.Second {
					t.Errorf("%s: %s for the headers", r.Name, manager.GetRequestHeadersTimeout().AsDuration())
				}
				manager.RequestHeadersTimeout = durationpb.New(200 * time.Millisecond)
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &manager)}
			}
		}
		out, err := ads.NewResource(r.Type, r.Name, l)
		if err != nil {
			t.Fatal(err)
		}
		return out
	})
	for way, addr := range map[string]string{"in": in.addr, "out": in.egress()} {
		r := raw(t, addr, "GET /q HTTP/1.1\r\nHost: orders\r\n") // and no more
		if corpus.Status(r) != http.StatusRequestTimeout || r.Header.Get("X-Signet-Denied") != "malformed" || !uuid.MatchString(r.Header.Get("X-Signet-Decision-Id")) {
			t.Errorf("%s: %v", way, r)
		}
	}
}

func TestOffersOfAnotherHTTPOrTLSAreIgnored(t *testing.T) {
	in := startInbound(t, orders)
	for _, offer := range []string{"TLS/1.2", "tls/1.3", "TLS/1.0, TLS/1.1, TLS/1.2", "TLS/1.2, HTTP/1.1", "HTTP/2.0", "h2c", "h2c, TLS/1.2"} {
		for way, addr := range map[string]string{"in": in.addr, "out": in.egress()} {
			r := raw(t, addr, "GET /q HTTP/1.1\r\nHost: plain.shop.internal\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nUpgrade: "+offer+"\r\n\r\n")
			arrived := in.app.take()
			if corpus.Status(r) != http.StatusOK || len(arrived) != 1 {
				t.Errorf("Upgrade: %s, %s: %v, %d arrived", offer, way, r, len(arrived))
				continue
			}
			if u, c := arrived[0].Header.Get("Upgrade"), arrived[0].Header.Get("Connection"); u != "" || c != "" {
				t.Errorf("Upgrade: %s, %s: arrived with upgrade %q, connection %q", offer, way, u, c)
			}
		}
	}
}

func TestNativeDenialsHaveAnIDAClassAndARecord(t *testing.T) {
	in := startInbound(t, orders)
	ask := func(path string) *http.Response {
		return raw(t, in.addr, "GET "+path+" HTTP/1.1\r\nHost: orders\r\nx-request-id: 00000000-0000-4000-8000-000000000000\r\nConnection: close\r\n\r\n")
	}
	// The agent's own denial is left as it is.
	if r := ask("/admin"); corpus.Status(r) != 403 || r.Header.Get("X-Signet-Denied") != "policy" ||
		r.Header.Get("X-Signet-Decision-Id") != "00000000000000000000000000000001" || r.Header.Get(corpus.BodyHeader) != "denied: policy\n" {
		t.Errorf("the agent's denial: %v", r)
	}
	// What passes is stamped, and an application cannot pretend to deny.
	if r := ask("/ok"); corpus.Status(r) != 200 || r.Header.Get("X-Signet-Denied") != "" || r.Header.Get("X-Signet-Decision-Id") != "" {
		t.Errorf("an allowed request: %v", r)
	}
	if rev := in.stub.lastCheck().GetContextExtensions()["signet.policy_revision"]; rev != "rev-7" {
		t.Errorf("stamped with %q", rev)
	}
	in.app.take()

	ids := map[string]bool{}
	denied := func(path string, code int, class string) string {
		t.Helper()
		r := ask(path)
		id := r.Header.Get("X-Signet-Decision-Id")
		if corpus.Status(r) != code || r.Header.Get("X-Signet-Denied") != class || !uuid.MatchString(id) || strings.HasPrefix(id, "00000000") {
			t.Errorf("%s: %d %v", path, corpus.Status(r), r.Header)
		}
		if want := "denied: " + class + ", decision " + id + "\n"; r.Header.Get(corpus.BodyHeader) != want {
			t.Errorf("%s: body %q, want %q", path, r.Header.Get(corpus.BodyHeader), want)
		}
		if ids[id] {
			t.Errorf("%s: the id %s was used before", path, id)
		}
		ids[id] = true
		return id
	}
	logged := func(id string) {
		t.Helper()
		eventually(t, "the record of "+id, func() bool { return strings.Contains(in.proxy.envoy.Log(), id) })
	}
	logged(denied("/a;b?token=secret", 400, "ambiguous"))
	denied("/reroute", 500, "error") // the answer tries to change :path
	in.stub.stop()
	logged(denied("/ok?token=secret", 503, "unavailable"))
	logged(denied("/", 503, "unavailable"))
	if arrived := in.app.take(); len(arrived) > 0 {
		t.Errorf("%d denied requests arrived", len(arrived))
	}
	if strings.Contains(in.proxy.envoy.Log(), "secret") {
		t.Error("a record holds a query")
	}
}
