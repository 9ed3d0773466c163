package xdstest_test

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
)

func (in *inbound) egress() string {
	host, _, _ := net.SplitHostPort(in.addr)
	return xdstest.EgressOn(host).String()
}

// A name is no pattern (A20).
func TestOutboundCallsReachDeclaredBackendsOnly(t *testing.T) {
	in := startInbound(t, orders)
	port := strconv.FormatUint(uint64(in.app.port), 10)
	absolute := func(target string) *http.Response {
		return raw(t, in.egress(), "GET "+target+" HTTP/1.1\r\nHost: whatever\r\nX-Forwarded-Client-Cert: forged\r\nConnection: close\r\n\r\n")
	}
	for target, want := range map[string]int{
		"http://plain.shop.internal/a":                200,
		"http://plain.shop.internal:" + port + "/a":   200,
		"http://PLAIN.shop.internal/a":                200,
		"http://plain.shop.internal:1/a":              404,
		"http://plainXshop.internal/a":                404,
		"http://undeclared.shop.internal/a":           404,
		"http://" + in.app.address + ":" + port + "/": 404,
		"http://plain.shop.internal/a;b":              400,
	} {
		r := absolute(target)
		if corpus.Status(r) != want {
			t.Errorf("%s: %d, want %d", target, corpus.Status(r), want)
		}
		arrived := in.app.take()
		if (want == 200) != (len(arrived) == 1) {
			t.Errorf("%s: %d arrived", target, len(arrived))
			continue
		}
		if want == 200 && (arrived[0].Header.Get("X-Forwarded-Client-Cert") != "" || arrived[0].RequestURI != "/a") {
			t.Errorf("%s: arrived as %s %v", target, arrived[0].RequestURI, arrived[0].Header)
		}
	}
	if r := raw(t, in.egress(), "CONNECT plain.shop.internal:443 HTTP/1.1\r\nHost: plain.shop.internal:443\r\n\r\n"); corpus.Status(r) < 400 {
		t.Errorf("CONNECT: %d", corpus.Status(r))
	}
}

func TestWebsocketsPassInAndOut(t *testing.T) {
	in := startInbound(t, orders)
	for name, at := range map[string]string{"in": in.addr, "out": in.egress()} {
		r := raw(t, at, "GET /ws HTTP/1.1\r\nHost: plain.shop.internal\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
		if corpus.Status(r) != http.StatusSwitchingProtocols {
			t.Errorf("%s: %d", name, corpus.Status(r))
		}
		if name == "in" && !strings.HasPrefix(in.stub.lastCheck().GetRequest().GetHttp().GetPath(), "/ws") {
			t.Error("nobody asked about it")
		}
	}
}

// On a host without a processor to spare the word about a connection or a request comes late; that
// is no reason to close it, or to deny (docs/decisions/097).
func TestAnAnswerThatIsLateIsWaitedFor(t *testing.T) {
	t.Parallel()
	in := startInbound(t, orders)
	in.stub.late.Store(int64(1500 * time.Millisecond))
	if r := raw(t, in.egress(), "GET http://plain.shop.internal/a HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n"); corpus.Status(r) != http.StatusOK {
		t.Errorf("out: %d", corpus.Status(r))
	}
	if r := raw(t, in.addr, "GET /a HTTP/1.1\r\nHost: plain.shop.internal\r\nConnection: close\r\n\r\n"); corpus.Status(r) != http.StatusOK {
		t.Errorf("in: %d", corpus.Status(r))
	}
}
