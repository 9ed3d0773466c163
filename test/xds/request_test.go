package xdstest_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signet.example/test/corpus"
)

// hostile is one request of the corpus's header and line rows, and what must
// become of it.
type hostile struct {
	request string // all after which the empty line follows
	status  int    // 0: any refusal, nothing arrives
	arrived func(t *testing.T, r *http.Request, seen *authv3.AttributeContext)
}

const get = "GET /q HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n"

func absent(header string) func(*testing.T, *http.Request, *authv3.AttributeContext) {
	return func(t *testing.T, r *http.Request, _ *authv3.AttributeContext) {
		t.Helper()
		if v := r.Header.Values(header); len(v) > 0 {
			t.Errorf("%s arrived: %q", header, v)
		}
	}
}

// sees wants the policy to be shown each value of a header on its own.
func sees(header string, values ...string) func(*testing.T, *http.Request, *authv3.AttributeContext) {
	return func(t *testing.T, _ *http.Request, seen *authv3.AttributeContext) {
		t.Helper()
		var got []string
		for _, h := range seen.GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if h.GetKey() == header {
				got = append(got, h.GetValue()+string(h.GetRawValue()))
			}
		}
		if !slices.Equal(got, values) {
			t.Errorf("the policy saw %s: %q, want %q", header, got, values)
		}
	}
}

func host(want string) func(*testing.T, *http.Request, *authv3.AttributeContext) {
	return func(t *testing.T, r *http.Request, seen *authv3.AttributeContext) {
		t.Helper()
		if got := seen.GetRequest().GetHttp().GetHost(); got != want || r.Host != want {
			t.Errorf("the policy saw host %q, the application %q, want %q", got, r.Host, want)
		}
	}
}

var hostileRows = map[string]hostile{
	"header x_role underscore":    {request: get + "x_role: admin\r\n"},
	"header X-Role case":          {get + "X-Role: admin\r\n", 200, sees("x-role", "admin")},
	"header x-role with comma":    {get + "x-role: user,admin\r\n", 200, sees("x-role", "user,admin")},
	"header nul in value":         {request: get + "x-role: a\x00b\r\n"},
	"header space before colon":   {request: get + "x-role : admin\r\n"},
	"header xfcc from client":     {get + "x-forwarded-client-cert: URI=spiffe://test.example/shop/front\r\n", 200, absent("X-Forwarded-Client-Cert")},
	"header TE+CL":                {request: "POST /q HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"},
	"header x-envoy-internal":     {get + "x-envoy-internal: true\r\n", 200, absent("X-Envoy-Internal")},
	"header latin1 value":         {get + "x-role: \xe9\r\n", 200, sees("x-role", "\xe9")},
	"header host port":            {"GET /q HTTP/1.1\r\nHost: orders:8443\r\nConnection: close\r\n", 200, host("orders")},
	"line bare LF":                {request: "GET /admin HTTP/1.1\nHost: orders\nConnection: close\n"},
	"line CONNECT":                {request: "CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\nConnection: close\r\n"},
	"line absolute upper host":    {"GET http://H/q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", 200, host("H")},
	"line method junk":            {request: "G(ET /q HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n"},
	"ours two hosts":              {request: "GET /q HTTP/1.1\r\nHost: orders\r\nHost: evil\r\nConnection: close\r\n"},
	"ours host with comma":        {request: "GET /q HTTP/1.1\r\nHost: orders,evil\r\nConnection: close\r\n"},
	"ours host with path":         {request: "GET /q HTTP/1.1\r\nHost: orders/evil\r\nConnection: close\r\n"},
	"ours host with user":         {request: "GET /q HTTP/1.1\r\nHost: a@orders\r\nConnection: close\r\n"},
	"ours host with zone":         {request: "GET /q HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\nConnection: close\r\n"},
	"ours final dot":              {"GET /q HTTP/1.1\r\nHost: orders.\r\nConnection: close\r\n", 200, host("orders")},
	"ours IPv6 host":              {"GET /q HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\nConnection: close\r\n", 200, host("[2001:db8::1]")},
	"ours no host":                {request: "GET /q HTTP/1.1\r\nConnection: close\r\n"},
	"ours repeated header":        {get + "x-role: user\r\nX-Role: admin\r\n", 200, sees("x-role", "user", "admin")},
	"ours hop-by-hop XFCC":        {get + "X-Forwarded-Client-Cert: a\r\nConnection: x-forwarded-client-cert\r\n", 200, absent("X-Forwarded-Client-Cert")},
	"ours upstream time-out":      {get + "x-envoy-upstream-rq-timeout-ms: 1\r\n", 200, absent("X-Envoy-Upstream-Rq-Timeout-Ms")},
	"ours original path":          {get + "x-envoy-original-path: /admin\r\n", 200, absent("X-Envoy-Original-Path")},
	"ours request id of a caller": {get + "x-request-id: 00000000-0000-4000-8000-000000000000\r\n", 200, ownRequestID},
	"ours HTTP/2 by upgrade":      {"GET /q HTTP/1.1\r\nHost: orders\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n", 200, absent("Upgrade")},
	"ours unknown upgrade":        {request: "GET /q HTTP/1.1\r\nHost: orders\r\nUpgrade: tunnel\r\nConnection: upgrade\r\n"},
	"ours HTTP/1.0":               {request: "GET /q HTTP/1.0\r\n\r\n"},
	"ours mutated path":           {request: "GET /reroute HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n"},
}

func ownRequestID(t *testing.T, r *http.Request, _ *authv3.AttributeContext) {
	t.Helper()
	if id := r.Header.Get("X-Request-Id"); id == "" || strings.HasPrefix(id, "00000000") {
		t.Errorf("request id %q", id)
	}
}

func TestHostileHeadersAndRequestLinesAreRefusedOrMadeHarmless(t *testing.T) {
	in := startInbound(t, orders)
	for _, kind := range []string{"header", "line"} {
		for _, row := range corpus.Rows(t, kind) {
			if _, ok := hostileRows[kind+" "+row]; !ok {
				t.Errorf("no expectation for row %s %q of the shared corpus", kind, row)
			}
		}
	}
	for name, h := range hostileRows {
		t.Run(name, func(t *testing.T) {
			end := "\r\n"
			resp := raw(t, in.addr, h.request+end)
			arrived := in.app.take()
			if h.status != http.StatusOK {
				if code := corpus.Status(resp); code != 0 && code < 400 || h.status != 0 && code != h.status {
					t.Errorf("status %d", code)
				}
				if len(arrived) > 0 {
					t.Errorf("arrived: %s %s %v", arrived[0].Method, arrived[0].RequestURI, arrived[0].Header)
				}
				return
			}
			if corpus.Status(resp) != http.StatusOK || len(arrived) != 1 {
				t.Fatalf("status %d, %d arrived", corpus.Status(resp), len(arrived))
			}
			h.arrived(t, arrived[0], in.stub.lastCheck())
		})
	}
}

func TestNoWayRoundByHTTP2(t *testing.T) {
	for protocol, manifest := range map[string]string{"http": orders, "http2": ordersHTTP2} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel() // some of them are answered by closing, after a second
			noWayRoundByHTTP2(t, startInbound(t, manifest))
		})
	}
}

func noWayRoundByHTTP2(t *testing.T, in *inbound) {
	t.Helper()
	base := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "orders"}, {":path", "/q"}}
	for name, fields := range map[string][][2]string{
		"CONNECT":           {{":method", "CONNECT"}, {":authority", "orders:443"}},
		"extended CONNECT":  {{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "orders"}, {":path", "/q"}},
		"CONNECT-UDP":       {{":method", "CONNECT"}, {":protocol", "connect-udp"}, {":scheme", "http"}, {":authority", "orders"}, {":path", "/q"}},
		"joined authority":  {{":method", "GET"}, {":scheme", "http"}, {":authority", "orders,evil"}, {":path", "/q"}},
		"no authority":      {{":method", "GET"}, {":scheme", "http"}, {":path", "/q"}},
		"no path":           {{":method", "GET"}, {":scheme", "http"}, {":authority", "orders"}},
		"underscore":        append(slices.Clone(base), [2]string{"x_role", "admin"}),
		"upper-case header": append(slices.Clone(base), [2]string{"X-Role", "admin"}),
	} {
		if code := headers2(t, in.addr, fields...); code >= 200 && code < 400 {
			t.Errorf("%s: %d", name, code)
		}
		if arrived := in.app.take(); len(arrived) > 0 {
			t.Errorf("%s: arrived as %s %s", name, arrived[0].Method, arrived[0].RequestURI)
		}
	}
	if code := headers2(t, in.addr, base...); code != http.StatusOK {
		t.Errorf("an ordinary request: %d", code)
	}
}
