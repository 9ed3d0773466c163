package xdstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// ofFiles is a node whose certificate and authorities are in files, one that pretends to be
// it, and callers: by a name that is found, by names, and without a certificate of a file.
const ofFiles = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
  backendDefaults:
    clientPolicy:
      tls:
        certificate: {file: {certificateChain: /keys/front.pem, privateKey: /keys/front.key}}
        validation: {trust: {file: {certificateChain: /keys/ca.pem}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: named}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
  backendDefaults:
    clientPolicy:
      tls:
        certificate: {file: {certificateChain: /keys/front.pem, privateKey: /keys/front.key}}
        validation: {trust: {file: {certificateChain: /keys/ca.pem}}, subjectAlternativeNames: {match: {exact: [pretender.shop, other.shop]}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: bare}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
  backendDefaults: {clientPolicy: {tls: {validation: {trust: {file: {certificateChain: /keys/ca.pem}}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: managed}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  serviceDiscovery: {dns: {hostname: orders.shop}}
  listeners:
    - portMapping: {port: PORT, protocol: http}
      tls:
        mode: STRICT
        certificate: {file: {certificateChain: /keys/orders.shop.pem, privateKey: /keys/orders.key}}
        validation: {trust: {file: {certificateChain: /keys/ca.pem}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: pretender}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
      tls:
        mode: STRICT
        certificate: {file: {certificateChain: /keys/pretender.shop.pem, privateKey: /keys/orders.key}}
        validation: {trust: {file: {certificateChain: /keys/ca.pem}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec: {awsName: orders.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: orders}}}}
`

func TestCertificatesOfFilesAreShownAndTheirAuthoritiesBelieved(t *testing.T) {
	stub, app, pki := startStub(t), startApplication(t), newPKI(t)
	text := strings.ReplaceAll(ofFiles, "PORT", strconv.FormatUint(uint64(app.port), 10))
	node := func(name string, endpoints ...xds.Endpoint) xdstest.Case {
		bind := loopback()
		return xdstest.Case{
			Name: name, Mesh: "shop", Node: name,
			Input: xds.Input{
				Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain,
				Endpoints: func(proxy.Ref, uint32) []xds.Endpoint { return endpoints },
			},
			Shape: proxy.Shape{Bind: bind, App: app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
		}
	}
	orders, pretender := node("orders"), node("pretender")
	startProxy(t, orders, pki)
	startProxy(t, pretender, pki)
	var caller *running
	var at string
	call := func(from string, to xdstest.Case) int {
		t.Helper()
		c := node(from, xds.Endpoint{Address: to.Shape.Bind, Port: app.port, Healthy: true})
		if caller == nil {
			at = c.Shape.Bind
			caller = startProxy(t, c, pki)
		} else {
			c.Shape.Bind, c.Shape.Egress = at, xdstest.EgressOn(at)
			caller.publish(c, pki)
			caller.settle()
		}
		code := corpus.Status(raw(t, c.Shape.Egress.String(), "GET http://orders.shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		if got := len(app.take()); (code == 200) != (got > 0) {
			t.Errorf("%s to %s: %d, and the application got %d requests", from, to.Node, code, got)
		}
		return code
	}
	for _, c := range []struct {
		from string
		to   xdstest.Case
		want int
	}{
		{"front", orders, 200},
		{"front", pretender, 503}, // the same authority's, with another name
		{"named", pretender, 200}, // by the policy's names
		{"named", orders, 503},
		{"bare", orders, 502},    // its SVID is nothing to the file's authority, which it learns late
		{"managed", orders, 503}, // nobody told it of that authority
	} {
		if got := call(c.from, c.to); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.from, c.to.Node, got, c.want)
		}
	}
}

func TestAuthoritiesOfAFileGiveNobodyAnIdentity(t *testing.T) {
	in := startInbound(t, ofFiles)
	files := in.pki.files(t)
	try := func(c *tls.Certificate) string {
		t.Helper()
		_, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*c}})
		return refused
	}
	state, refused := in.handshake(t, &tls.Config{Certificates: []tls.Certificate{*files.named(t, nil, "front.shop")}})
	if refused != "" {
		t.Fatal(refused)
	}
	if leaf := state.PeerCertificates[0]; !slices.Equal(leaf.DNSNames, []string{"orders.shop"}) || len(leaf.URIs) > 0 || state.Version != tls.VersionTLS13 {
		t.Errorf("the listener shows %v over %x", leaf.DNSNames, state.Version)
	}
	check := in.stub.lastCheck()
	if got := in.stub.told.Get(proxy.CallersKey); !slices.Equal(got, []string{proxy.ForeignCallers}) || check.GetSource().GetCertificate() != "" {
		t.Errorf("the agent is told that callers are %v", got)
	}
	for _, h := range check.GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if strings.Contains(string(h.GetRawValue()), "Chain=") {
			t.Errorf("the chain is in %s", h.GetKey())
		}
	}
	if seen := in.app.take(); len(seen) != 1 || strings.Contains(seen[0].Header.Get("X-Forwarded-Client-Cert"), "forged") {
		t.Errorf("the application saw %+v", seen)
	}
	uris := func(list ...*url.URL) *tls.Certificate {
		return files.named(t, func(c *x509.Certificate) { c.URIs = list }, "front.shop")
	}
	ours := &url.URL{Scheme: "spiffe", Host: "test.example", Path: "/shop/front"}
	for name, c := range map[string]*tls.Certificate{
		"an identity of ours":                uris(ours),
		"an identity of ours among others":   uris(&url.URL{Scheme: "https", Host: "a"}, ours),
		"the other way round":                uris(ours, &url.URL{Scheme: "https", Host: "a"}),
		"in other letters":                   uris(&url.URL{Scheme: "SPIFFE", Host: "TEST.example", Path: "/shop/front"}),
		"behind a comma":                     uris(&url.URL{Opaque: "a,spiffe://test.example/shop/front", Scheme: "x"}),
		"of another trust domain":            uris(&url.URL{Scheme: "spiffe", Host: "other.example", Path: "/shop/front"}),
		"an SVID, which no file vouches for": in.pki.svid(t, "spiffe://test.example/shop/front"),
		"nobody's":                           newPKI(t).named(t, nil, "front.shop"),
	} {
		if try(c) == "" {
			t.Errorf("%s is let in", name)
		}
	}
	if refused := try(uris(&url.URL{Scheme: "https", Host: "a.example"})); refused != "" {
		t.Errorf("another URI: %s", refused)
	}
	if code := sendHTTP1(t, in.addr, "/q"); code != 0 {
		t.Errorf("plaintext: %d", code)
	}
	if got := len(in.app.take()); got != 1 {
		t.Errorf("%d requests reached the application, want that of the other URI", got)
	}
}

func TestAListenerWithoutItsSecretTakesNobody(t *testing.T) {
	secret, missing := proxy.TLSFiles{Certificate: "/keys/orders.shop.pem", Key: "/keys/orders.key"}.Name(), true
	in := startInboundEdited(t, ofFiles, func(r *ads.Resource) *ads.Resource {
		if missing && r.Name == secret {
			return nil
		}
		return r
	})
	caller := &tls.Config{Certificates: []tls.Certificate{*in.pki.files(t).named(t, nil, "front.shop")}}
	if _, refused := in.handshake(t, caller); refused == "" {
		t.Error("a caller is let in by a listener without a certificate")
	}
	missing = false // the file is there
	in.proxy.publish(in.of, in.pki)
	in.proxy.settle()
	if _, refused := in.handshake(t, caller); refused != "" {
		t.Error(refused)
	}

	// Another certificate in the files ends nothing.
	transport := &http.Transport{TLSClientConfig: caller}
	defer transport.CloseIdleConnections()
	get := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+in.addr+"/q", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.String()
	}
	before := get()
	in.proxy.publish(in.of, in.pki)
	in.proxy.settle()
	if get() != before {
		t.Error("the connection was ended")
	}
	if state, refused := in.handshake(t, caller); refused != "" || state.PeerCertificates[0].SerialNumber.String() == before {
		t.Errorf("a new connection: the certificate of before, %s", refused)
	}
}
