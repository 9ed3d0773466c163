package xdstest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signet.example/authz"
	"signet.example/identity"
	"signet.example/mesh/graphtest"
	"signet.example/policy"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// strictCallee takes everybody of its trust domain, and asks a policy that allows
// everybody.
const strictCallee = `
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
`

// allowAll is the real decider with a policy that allows everything.
type allowAll struct {
	socket string

	mu      sync.Mutex
	records []authz.Record
}

func startAllowAll(t *testing.T, destination string, issuers ...authz.Issuer) (a *allowAll, revision string) {
	t.Helper()
	a = &allowAll{socket: filepath.Join(socketDir(t), "authz.sock")}
	rev := policy.NewRevision("file:///allow", "1", []policy.Module{{Path: "allow.rego", Rego: "package signet.authz\n\nallow contains \"everything\" if true\n"}}, policy.Generated{})
	compiled, err := policy.Compile(rev)
	if err != nil {
		t.Fatal(err)
	}
	s := authz.New(authz.Options{Record: func(r authz.Record) { a.mu.Lock(); defer a.mu.Unlock(); a.records = append(a.records, r) }})
	s.Configure(authz.Config{Policies: []*policy.Compiled{compiled}, Issuers: issuers})
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(authz.Credentials()))
	authv3.RegisterAuthorizationServer(g, s)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = g.Serve(proxied{l, authz.Caller{Destination: spiffeid.RequireFromString(destination), Proxy: "orders"}})
	})
	t.Cleanup(func() { g.Stop(); wg.Wait() })
	return a, rev.ID
}

// proxied is a listener whose every peer was attested to be one proxy.
type proxied struct {
	net.Listener
	caller authz.Caller
}

func (p proxied) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return authz.NewConn(c, p.caller), nil
}

// hostileListener is a STRICT listener of ours with a bundle that can be changed.
type hostileListener struct {
	*inbound
	decider *allowAll
	c       xdstest.Case
}

func startHostileListener(t *testing.T, td spiffeid.TrustDomain) *hostileListener {
	t.Helper()
	h := &hostileListener{inbound: &inbound{app: startApplication(t), pki: newPKI(t)}}
	var revision string
	h.decider, revision = startAllowAll(t, td.IDString()+"/shop/orders")
	text, bind := strings.ReplaceAll(strictCallee, "PORT", h.app.portText()), loopback()
	h.c = xdstest.Case{
		Name: "hostile", Mesh: "shop", Node: "orders",
		Input: xds.Input{
			Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: td, PolicyRevision: revision,
			Strict: func(proxy.Ref) bool { return true },
		},
		Shape: proxy.Shape{Bind: bind, App: h.app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: h.decider.socket, WayoutSocket: h.decider.socket, EnvoyVersion: "1.40.0"},
	}
	h.addr = net.JoinHostPort(h.c.Shape.Bind, h.app.portText())
	h.proxy = startProxy(t, h.c, h.pki)
	return h
}

// trust has the listener believe these roots.
func (h *hostileListener) trust(bundle [][]byte) {
	if !bytes.Equal(bytes.Join(h.pki.bundle, nil), bytes.Join(bundle, nil)) {
		h.pki.bundle = bundle
		h.proxy.publish(h.c, h.pki)
		h.proxy.settle()
	}
}

// present makes one request with a chain; the status, or why there was none.
func (h *hostileListener) present(t *testing.T, m remade) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // the listener is under test, not this client
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: m.chain, PrivateKey: m.key}, nil
			},
		},
	}}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "https://"+h.addr+"/q", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "x-forwarded-client-cert") // takes a proxy's header away, says the caller
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	_ = resp.Body.Close() // the status is enough
	return resp.StatusCode, resp.Header.Get("x-signet-denied")
}

// Envoy refuses what it can; the rest is refused by the authorization, which sees
// the chain: nothing that our own verifiers refuse comes in, and what they take
// does, with one name in the header that the application reads.
func TestHostileSVIDsReachNoApplication(t *testing.T) {
	cases, r := hostileSVIDs(t, "*.json"), newRemaker(t)
	h := startHostileListener(t, spiffeid.RequireTrustDomainFromString(cases[0].TrustDomain))
	// Envoy takes no such keys: what we would accept does not get that far.
	envoyRefuses := map[string]bool{"ed25519-leaf": true, "p521-leaf": true}
	byAuthz, accepted := 0, 0
	all := map[string]remade{}
	for _, c := range cases {
		all[c.ID] = r.all(c)
	}
	for id, m := range r.namedBadly(cases[0]) {
		all[id] = m
		cases = append(cases, hostileSVID{ID: id, Expect: "reject", TrustDomain: cases[0].TrustDomain})
	}
	for _, c := range cases {
		if c.TrustDomain != h.c.Input.TrustDomain.Name() {
			t.Errorf("%s: trust domain %s", c.ID, c.TrustDomain)
			continue
		}
		m := all[c.ID]
		h.trust(m.bundle)
		status, why := h.present(t, m)
		arrived := h.app.take()
		ours := verify(m, h.c.Input.TrustDomain)
		switch {
		case c.Expect == "reject" && ours == nil:
			t.Errorf("%s: made again, it is not what it was: our verifier takes it", c.ID)
		case c.Expect == "accept" && ours != nil:
			t.Errorf("%s: made again, it is not what it was: %v", c.ID, ours)
		}
		want := ours == nil && !envoyRefuses[c.ID]
		if (status == http.StatusOK) != want || len(arrived) != map[bool]int{true: 1}[want] {
			t.Errorf("%s (%s): status %d %s, %d requests arrived; our verifier: %v", c.ID, c.Rule, status, why, len(arrived), ours)
		}
		if status == http.StatusForbidden {
			byAuthz++
		}
		for _, a := range arrived {
			accepted++
			if xfcc := a.Header.Values("X-Forwarded-Client-Cert"); len(xfcc) != 1 || strings.Count(xfcc[0], "spiffe://") != 2 || !strings.Contains(xfcc[0], ";URI=spiffe://"+c.TrustDomain+"/") || strings.Contains(xfcc[0], "Chain") {
				t.Errorf("%s: the application saw %q", c.ID, xfcc)
			}
		}
	}
	t.Logf("%d chains: %d accepted, %d refused by the listener, %d by the authorization", len(cases), accepted, len(cases)-accepted-byAuthz, byAuthz)
}

// namedBadly are leaves of the root of a case, right in all but their names.
func (r *remaker) namedBadly(c hostileSVID) map[string]remade {
	r.t.Helper()
	m := r.all(c)
	root, err := x509.ParseCertificate(m.bundle[0])
	if err != nil {
		r.t.Fatal(err)
	}
	good := "spiffe://" + c.TrustDomain + "/ns/default/sa/web"
	made := map[string]remade{}
	for name, uris := range map[string][]string{
		"own: a comma":                      {good + "," + good},
		"own: NUL behind a good name":       {good + "\x00"},
		"own: a newline behind a good name": {good + "\n"},
		"own: a bad name first":             {"spiffe://" + c.TrustDomain + "/../x", good},
		"own: another trust domain's, too":  {good, "spiffe://other.example/x"},
		"own: an empty one, too":            {good, ""},
		"own: a chain in the name":          {good + `;Chain="x";URI=` + good},
		"own: not in ASCII":                 {good + "\xff"},
	} {
		var names []asn1.RawValue
		for _, u := range uris {
			names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
		}
		key := newKey(r.t)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(len(made) + 1)), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
			ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: r.marshal(names)}},
		}, root, key.Public(), r.key(parseOld(r.t, c.Bundle[0]).spki()))
		if err != nil {
			r.t.Fatalf("%s: %v", name, err)
		}
		made[name] = remade{chain: [][]byte{der}, bundle: m.bundle, key: key}
	}
	return made
}

func verify(m remade, td spiffeid.TrustDomain) error {
	roots, err := x509.ParseCertificates(bytes.Join(m.bundle, nil))
	if err != nil {
		return err
	}
	chain, err := x509.ParseCertificates(bytes.Join(m.chain, nil))
	if err != nil {
		return err
	}
	_, err = identity.VerifyChain(chain, td, identity.PoolOf(roots...), time.Now(), x509.ExtKeyUsageClientAuth)
	return err
}
