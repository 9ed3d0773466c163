package xdstest_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"signet.example/test/corpus"
)

func TestNoRequestOfThePathCorpusReachesAdmin(t *testing.T) {
	for protocol, manifest := range map[string]string{"http": orders, "http2": ordersHTTP2} {
		t.Run(protocol, func(t *testing.T) { noPathReachesAdmin(t, startInbound(t, manifest)) })
	}
}

func noPathReachesAdmin(t *testing.T, in *inbound) {
	t.Helper()
	rows := append(corpus.Rows(t, "path"), corpus.Ours...)
	passed := map[string]int{}
	for _, target := range rows {
		for version, send := range map[string]func(*testing.T, string, string) int{"HTTP/1.1": sendHTTP1, "HTTP/2": sendHTTP2} {
			if version == "HTTP/2" && !strings.HasPrefix(target, "/") {
				continue // not a :path (RFC 9113 section 8.3.1); Envoy closes, after a second
			}
			status := send(t, in.addr, target)
			arrived := in.app.take()
			if status == http.StatusOK {
				passed[version]++
			}
			if corpus.MustPass[target] && status != http.StatusOK {
				t.Errorf("%s %q: %d, want it to pass", version, target, status)
			}
			if status == http.StatusOK && len(arrived) != 1 || status != http.StatusOK && len(arrived) != 0 {
				t.Errorf("%s %q: %d, but %d requests arrived", version, target, status, len(arrived))
			}
			for _, r := range arrived {
				if saw := r.Header.Get(seenHeader); saw != r.RequestURI {
					t.Errorf("%s %q: the policy saw %q, the application %q", version, target, saw, r.RequestURI)
				}
				if how := corpus.Under(r.RequestURI, "/admin"); how != "" {
					t.Errorf("%s %q arrived as %q, which is under /admin for an application that %s", version, target, r.RequestURI, how)
				}
			}
		}
	}
	t.Logf("%d paths, passed: %v", len(rows), passed)
	if passed["HTTP/1.1"] < len(corpus.MustPass) || passed["HTTP/2"] < len(corpus.MustPass) {
		t.Errorf("passed: %v; the test sees nothing if nothing passes", passed)
	}
}

// sendHTTP1 writes the target as it is and returns the status; 0 for none.
func sendHTTP1(t *testing.T, addr, target string) int {
	t.Helper()
	return corpus.Status(raw(t, addr, "GET "+target+" HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"))
}

func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func raw(t *testing.T, addr, request string) *http.Response {
	t.Helper()
	conn := connect(t, addr)
	defer func() { _ = conn.Close() }() // one request
	return corpus.HTTP1(t, conn, request)
}

// sendHTTP2 speaks frames: no client library would send these paths.
func sendHTTP2(t *testing.T, addr, target string) int {
	t.Helper()
	return headers2(t, addr, [2]string{":method", "GET"}, [2]string{":scheme", "http"}, [2]string{":authority", "orders"}, [2]string{":path", target})
}

func headers2(t *testing.T, addr string, fields ...[2]string) int {
	t.Helper()
	conn := connect(t, addr)
	defer func() { _ = conn.Close() }() // one request
	return corpus.HTTP2(t, conn, fields...)
}
