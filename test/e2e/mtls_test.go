package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"signet.example/test/meshtest"
)

// tester is an Entry for the test's own process, by uid and path: the test then
// gets a real SVID of the trust domain from the Workload API.
const tester = `apiVersion: signet.example/v1alpha1
kind: Entry
metadata: {name: tester}
spec: {group: hosts, spiffeID: "spiffe://test.example/test/tester", selectors: ["unix:uid:%d"]}
`

// identity of the test's own process, kept fresh by the Workload API.
func identity(t *testing.T, w *meshtest.World) *workloadapi.X509Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(
		workloadapi.WithAddr("unix://"+filepath.Join(w.AgentDir(), "workload.sock"))))
	if err != nil {
		t.Fatalf("Workload API: %v", err)
	}
	t.Cleanup(func() { _ = source.Close() })
	return source
}

// certificate that the source holds now.
func certificate(t *testing.T, source *workloadapi.X509Source) *tls.Certificate {
	t.Helper()
	svid, err := source.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// request makes one HTTP request over conn and tells the status, or why there is none.
func request(conn net.Conn) (int, error) {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // a hang is a failure below
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: back\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that tickets behind it are read
	return resp.StatusCode, resp.Body.Close()
}

func dialTLS(address string, cert *tls.Certificate, cache tls.ClientSessionCache) (int, bool, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ClientSessionCache: cache, ServerName: "back"} //nolint:gosec // the server is what is tested, not the client
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	conn, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = conn.Close() }()
	status, err := request(conn)
	return status, conn.ConnectionState().DidResume, err
}

// forged makes a certificate with any SPIFFE ID, signed by a CA of its own.
func forged(t *testing.T, id string) *tls.Certificate {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: uri.Host}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}
}

func TestStrictListenerRefusesWhoIsNotOfTheMesh(t *testing.T) {
	reached := &counter{next: meshtest.Echo("back")}
	only := `      tls:
        mode: STRICT
        certificate:
          sds: {secretName: "spiffe://test.example/test/picky"}
        validation:
          trust:
            sds: {secretName: "spiffe://test.example"}
          subjectAlternativeNames:
            match: {exact: ["spiffe://test.example/test/front"]}
`
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "back", "picky"},
		Apps:  map[string]meshtest.App{"back": reached, "picky": reached},
		Manifests: meshtest.Join(meshtest.Mesh(),
			meshtest.VirtualNode("front", "", "back", "picky"),
			meshtest.VirtualNode("back", meshtest.Strict("test.example", "back")),
			meshtest.VirtualNode("picky", only),
			meshtest.ServiceOfNode("back", "back"), meshtest.ServiceOfNode("picky", "picky"),
			fmt.Sprintf(tester, uid())),
	})
	back := net.JoinHostPort(w.Nodes["back"].Bind, strconv.Itoa(meshtest.AppPort))
	picky := net.JoinHostPort(w.Nodes["picky"].Bind, strconv.Itoa(meshtest.AppPort))
	mine := certificate(t, identity(t, w))

	w.AwaitRoute("front", "http://"+meshtest.HostOf("back")+"/")
	w.AwaitRoute("front", "http://"+meshtest.HostOf("picky")+"/")
	// The controls: what is right is answered, so that a refusal means something.
	if a := w.Get("front", "http://"+meshtest.HostOf("back")+"/"); a.Status != 200 || a.Seen.Caller() != "spiffe://test.example/test/front" {
		t.Fatalf("front → back: %d, caller %q, %s", a.Status, a.Seen.Caller(), a.Body)
	}
	if a := w.Get("front", "http://"+meshtest.HostOf("picky")+"/"); a.Status != 200 {
		t.Fatalf("front → picky: %d %s", a.Status, a.Body)
	}
	if status, _, err := dialTLS(back, mine, nil); status != 200 {
		t.Fatalf("a member of the mesh by hand: %d, %v", status, err)
	}
	before := reached.n.Load()

	t.Run("plaintext", func(t *testing.T) {
		conn, err := net.Dial("tcp", back)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if status, err := request(conn); err == nil {
			t.Errorf("a plaintext request was answered with %d", status)
		}
	})
	for name, cert := range map[string]*tls.Certificate{
		"no certificate":                   nil,
		"another trust domain":             forged(t, "spiffe://other.example/test/front"),
		"another authority, our own names": forged(t, "spiffe://test.example/test/front"),
	} {
		t.Run(name, func(t *testing.T) {
			if status, _, err := dialTLS(back, cert, nil); err == nil {
				t.Errorf("answered with %d", status)
			}
		})
	}
	t.Run("the right authority with the wrong SPIFFE ID", func(t *testing.T) {
		if status, _, err := dialTLS(picky, mine, nil); err == nil {
			t.Errorf("answered with %d", status)
		}
	})
	if n := reached.n.Load(); n != before {
		t.Errorf("%d refused requests reached the application", n-before)
	}
	t.Run("a resumed session", func(t *testing.T) {
		cache := tls.NewLRUClientSessionCache(8)
		for i := range 4 {
			status, resumed, err := dialTLS(back, mine, cache)
			if err != nil || status != 200 {
				t.Fatalf("connection %d: %d, %v", i, status, err)
			}
			if resumed {
				t.Errorf("connection %d was a resumed session", i)
			}
		}
	})
}

func TestClientRefusesAServerWithTheWrongSPIFFEID(t *testing.T) {
	// "impostor" is a node whose DNS name leads to the test's own TLS server,
	// which has a real SVID of the trust domain: only not that node's.
	impostor := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: impostor}\nspec:\n  meshRef: {name: test}\n" +
		"  listeners:\n    - portMapping: {port: %d, protocol: http}\n" +
		"      tls: {mode: STRICT, certificate: {sds: {secretName: \"spiffe://test.example/test/impostor\"}}}\n" +
		"  serviceDiscovery:\n    dns: {hostname: 127.0.0.1}\n"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "impostor"),
			fmt.Sprintf(impostor, port), meshtest.ServiceOfNode("impostor", "impostor"), fmt.Sprintf(tester, uid())),
	})
	mine := certificate(t, identity(t, w))
	var handshakes, requests atomic.Int32
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			handshakes.Add(1)
			return mine, nil
		}},
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	a := w.Get("front", "http://"+meshtest.HostOf("impostor")+"/")
	if a.Status == 200 || requests.Load() != 0 {
		t.Errorf("front spoke to an impostor: %d, %d requests", a.Status, requests.Load())
	}
	if handshakes.Load() == 0 {
		t.Errorf("front never tried, so nothing was refused: %d %s", a.Status, a.Body)
	}
}

// counter counts the requests that reach an application.
type counter struct {
	n    atomic.Int64
	next http.Handler
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.n.Add(1)
	c.next.ServeHTTP(w, r)
}
