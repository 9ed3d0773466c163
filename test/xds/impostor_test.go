package xdstest_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	"signet.example/test/impostor"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// The two directions of every connection between two proxies: whoever has seen a
// chain on the wire shows it, with certificates of his own, and has not its key.

func TestAProxyTakesNobodyForACallerWhoHasNotItsKey(t *testing.T) {
	in := startInbound(t, strictOrders)
	mine := in.pki.svid(t, "spiffe://test.example/shop/front")
	key := mine.PrivateKey.(*ecdsa.PrivateKey)
	for name, c := range map[string]*tls.Certificate{"the caller": mine, "with its root": impostor.Shows(key, mine.Leaf, in.pki.root)} {
		if _, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*c}}); refused != "" {
			t.Errorf("%s: %s", name, refused)
		}
	}
	in.app.take()
	im := impostor.New(t, mine.Leaf, in.pki.root)
	for range impostor.Chains() {
		chain := im.Chain()
		if _, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*impostor.Shows(im.Key, chain...)}}); refused == "" {
			t.Fatalf("an impostor was taken for front: %d certificates, the first is %s", len(chain), chain[0].Subject)
		}
	}
	if n := len(in.app.take()); n > 0 {
		t.Errorf("%d requests of an impostor reached the application", n)
	}
}

func TestAProxyTakesNobodyForTheNodeItCallsWhoHasNotItsKey(t *testing.T) {
	stub, app, pki := startStub(t), startApplication(t), newPKI(t)
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	port := at.Port
	text := strings.ReplaceAll(pair, "PORT", strconv.Itoa(port))
	text = strings.ReplaceAll(text, "healthCheck: {protocol: http, path: /ping, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}", "")
	leaf := pki.svid(t, "spiffe://test.example/shop/orders")
	im := impostor.New(t, leaf.Leaf, pki.root)
	var honest atomic.Bool
	honest.Store(true)
	var shaken, answered atomic.Int64
	l = tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"http/1.1"},
		// Called by one connection at a time.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if honest.Load() {
				return impostor.Shows(leaf.PrivateKey.(*ecdsa.PrivateKey), leaf.Leaf, pki.root), nil
			}
			return impostor.Shows(im.Key, im.Chain()...), nil
		},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			shaken.Add(1)
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if n, _ := c.Read(make([]byte, 1)); n > 0 {
				answered.Add(1)
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	bind := loopback()
	front := xdstest.Case{
		Name: "front", Mesh: "shop", Node: "front",
		Input: xds.Input{
			Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain,
			Endpoints: func(proxy.Ref, uint32) []xds.Endpoint {
				return []xds.Endpoint{{Address: at.IP.String(), Port: uint32(port), Healthy: true}} //nolint:gosec // a port
			},
		},
		Shape: proxy.Shape{Bind: bind, App: app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
	}
	startProxy(t, front, pki)
	call := func() int {
		return corpus.Status(raw(t, front.Shape.Egress.String(), "GET http://orders.shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	}
	if code := call(); code != 200 {
		t.Fatalf("the node itself: %d", code)
	}
	honest.Store(false)
	time.Sleep(50 * time.Millisecond) // the honest connection is closed
	before := answered.Load()
	for first := shaken.Load(); shaken.Load()-first < int64(impostor.Chains()); {
		if code := call(); code != 503 {
			t.Fatalf("by way of an impostor: %d", code)
		}
	}
	if n := answered.Load() - before; n > 0 {
		t.Errorf("%d requests passed to an impostor", n)
	}
}
