package xdstest_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"signet.example/test/corpus"
)

// ordersHTTP2 is orders with a listener of HTTP/2; what it calls is of HTTP/1.
var ordersHTTP2 = strings.Replace(orders, "protocol: http}", "protocol: http2}", 1)

func TestAListenerOfHTTP2UpgradesToNothingAndTakesNoTrailers(t *testing.T) {
	in := startInbound(t, ordersHTTP2)
	const websocket = "GET /admin HTTP/1.1\r\nHost: orders\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	if r := raw(t, in.addr, strings.Replace(websocket, "/admin", "/ws", 1)); corpus.Status(r) != 403 || r.Header.Get("X-Signet-Denied") != "upgrade" {
		t.Errorf("websocket: %v", r)
	}
	// An offer of h2c is no upgrade: the request is one of HTTP/1, and is decided on.
	for path, want := range map[string]int{"/ok": 200, "/admin": 403} {
		if r := raw(t, in.addr, "GET "+path+" HTTP/1.1\r\nHost: orders\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n"); corpus.Status(r) != want {
			t.Errorf("h2c %s: %d", path, corpus.Status(r))
		}
	}
	arrived := in.app.take()
	if len(arrived) != 1 || arrived[0].ProtoMajor != 2 || arrived[0].RequestURI != "/ok" {
		t.Fatalf("arrived: %v", arrived)
	}
	trailers(t, in.addr, [2]string{"x-role", "admin"}, [2]string{"x-forwarded-client-cert", "URI=spiffe://test.example/shop/boss"}, [2]string{"x-signet-denied", "no"})
	if arrived = in.app.take(); len(arrived) != 1 || len(arrived[0].Trailer) > 0 {
		t.Errorf("trailers: %v", arrived)
	}
	// Out to a listener of HTTP/1 they pass.
	if r := raw(t, in.egress(), strings.Replace(websocket, "orders", "plain.shop.internal", 1)); corpus.Status(r) != 101 {
		t.Errorf("websocket out: %d", corpus.Status(r))
	}
}

// trailers sends one request with trailers, which no client library would send.
func trailers(t *testing.T, addr string, fields ...[2]string) {
	t.Helper()
	conn := connect(t, addr)
	defer func() { _ = conn.Close() }() // one request
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	var block bytes.Buffer
	e, f := hpack.NewEncoder(&block), http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	write := func(fields [][2]string, end bool) {
		block.Reset()
		for _, h := range fields {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) // to a buffer
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = f.WriteSettings()
	write([][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "orders"}, {":path", "/t"}, {"te", "trailers"}}, false)
	_ = f.WriteData(1, false, []byte("body"))
	write(fields, true)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := frame.(*http2.MetaHeadersFrame); ok {
			if m.PseudoValue("status") != "200" {
				t.Errorf("a request with trailers: %s", m.PseudoValue("status"))
			}
			return
		}
	}
}
