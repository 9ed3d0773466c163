package xdstest_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// strictOrders takes two callers and nobody else.
const strictOrders = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
      tls:
        mode: STRICT
        certificate: {acm: {certificateARN: "arn:aws:acm:eu-west-1:1:certificate/x"}}
        validation:
          trust: {sds: {secretName: "spiffe://test.example"}}
          subjectAlternativeNames: {match: {exact: ["spiffe://test.example/shop/front"]}}
`

// handshake makes one request over TLS; "" as what stands for an answer of 200.
func (in *inbound) handshake(t *testing.T, c *tls.Config) (state tls.ConnectionState, refused string) {
	t.Helper()
	c.InsecureSkipVerify = true // the listener is under test, not this client
	conn, err := tls.Dial("tcp", in.addr, c)
	if err != nil {
		return state, err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "GET /q HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: By=forged\r\nConnection: close\r\n\r\n"); err != nil {
		return state, err.Error()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return state, err.Error()
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return state, resp.Status
	}
	return conn.ConnectionState(), ""
}

func TestAManagedListenerKnowsItsCallers(t *testing.T) {
	in := startInbound(t, orders)
	const front = "spiffe://test.example/shop/front"
	mine := in.pki.svid(t, front)
	certificates := func(c *tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{*c}} }

	state, refused := in.handshake(t, certificates(mine))
	if refused != "" {
		t.Fatalf("a caller with an SVID: %s", refused)
	}
	if leaf := state.PeerCertificates[0]; len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://test.example/shop/orders" || state.Version != tls.VersionTLS13 {
		t.Errorf("the listener shows %v over %x", leaf.URIs, state.Version)
	}
	if got := in.stub.lastCheck().GetSource().GetPrincipal(); got != front {
		t.Errorf("the policy saw source %q", got)
	}
	r := in.app.take()
	if xfcc := r[0].Header.Get("X-Forwarded-Client-Cert"); !strings.Contains(xfcc, "URI="+front) || strings.Contains(xfcc, "forged") {
		t.Errorf("the application saw %q", xfcc)
	}

	other := newPKI(t)
	old := certificates(mine)
	old.MaxVersion = tls.VersionTLS12 // to be refused
	for name, c := range map[string]*tls.Config{
		"no certificate":                                 {},
		"TLS 1.2":                                        old,
		"an authority of the same name":                  certificates(other.svid(t, front)),
		"our authority, another trust domain":            certificates(in.pki.svid(t, "spiffe://test.example.evil/shop/front")),
		"our authority, a trust domain that ours begins": certificates(in.pki.svid(t, "spiffe://test.exampl/shop/front")),
		"our authority, no path":                         certificates(in.pki.svid(t, "spiffe://test.example")),
	} {
		if _, refused := in.handshake(t, c); refused == "" {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(in.app.take()) > 0 {
		t.Error("a refused caller reached the application")
	}
}

func TestNoSessionIsResumed(t *testing.T) {
	in := startInbound(t, orders)
	c := &tls.Config{Certificates: []tls.Certificate{*in.pki.svid(t, "spiffe://test.example/shop/front")}, ClientSessionCache: tls.NewLRUClientSessionCache(4), ServerName: "orders"}
	for range 3 {
		state, refused := in.handshake(t, c)
		if refused != "" || state.DidResume {
			t.Fatalf("refused %q, resumed %v", refused, state.DidResume)
		}
	}
	if _, ok := c.ClientSessionCache.Get("orders"); ok {
		t.Error("the listener hands out tickets")
	}
}

func TestAStrictListenerTakesNoPlaintextAndOnlyThoseItNames(t *testing.T) {
	in := startInbound(t, strictOrders)
	if code := sendHTTP1(t, in.addr, "/q"); code != 0 {
		t.Errorf("plaintext: %d", code)
	}
	for id, ok := range map[string]bool{
		"spiffe://test.example/shop/front":  true,
		"spiffe://test.example/shop/front2": false,
		"spiffe://test.example/shop/batch":  false,
	} {
		if _, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*in.pki.svid(t, id)}}); (refused == "") != ok {
			t.Errorf("%s: refused %q", id, refused)
		}
	}
}
