package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/api/admin"
	"signet.example/attestation/jointoken"
	"signet.example/ca"
	"signet.example/identity"
	"signet.example/internal/sampled"
	"signet.example/server"
	"signet.example/test/parts"
)

const trustDomain = "test.example"

// rig is a server on sockets and a data directory of its own.
type rig struct {
	t     *testing.T
	cfg   server.Config
	addr  server.Addresses
	admin api.AdminClient

	conn *grpc.ClientConn
	stop func() error
	run  func(context.Context, server.Config, *slog.Logger) error
}

// opened is the authority of made, with its keys decrypted once for all rigs.
var opened = sync.OnceValues(func() (*ca.Authority, error) {
	dir, err := made()
	if err != nil {
		return nil, err
	}
	return server.OpenCA(dir)
})

func runInProcess(ctx context.Context, cfg server.Config, log *slog.Logger) error {
	return server.RunInProcess(ctx, cfg, log, opened)
}

// made is a data directory as Init makes it; each rig takes a copy, since making
// keys from passwords is slow on purpose.
var made = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "signet-made")
	if err != nil {
		return "", err
	}
	madeIn = dir
	data := filepath.Join(dir, "d")
	if err := server.Init(context.Background(), server.InitConfig{TrustDomain: trustDomain, DataDir: data}); err != nil {
		return "", err
	}
	password, err := os.ReadFile(filepath.Join(data, "password"))
	if err != nil {
		return "", err
	}
	return data, fastKey(filepath.Join(data, "ca", "issuing.pem"), bytes.TrimSpace(password))
})

// fastKey has the key of a file deciphered once, for all who open a copy.
func fastKey(path string, password []byte) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if content, err = parts.FastKey(content, password); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

// madeIn is the folder of made, which TestMain removes; "" while there is none.
var madeIn string

// newRig runs a server whose signer is in this process.
func newRig(t *testing.T) *rig { return newRigWith(t, runInProcess) }

// newRigWith runs a server by run, which is server.Run or the like.
func newRigWith(t *testing.T, run func(context.Context, server.Config, *slog.Logger) error) *rig {
	t.Helper()
	data := filepath.Join(shortDir(t), "d")
	copyMade(t, data)
	r := &rig{t: t, cfg: server.Config{DataDir: data, Listen: "127.0.0.1:0", Metrics: "127.0.0.1:0"}, run: run}
	r.start()
	t.Cleanup(func() {
		if r.stop != nil {
			r.halt()
		}
	})
	return r
}

// shortDir is a folder whose path leaves room for a socket's name: t.TempDir has
// the test's name in it, and a socket's path has 108 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signet")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// copyMade makes a copy of made.
func copyMade(t *testing.T, dir string) {
	t.Helper()
	src, err := made()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
	tighten(t, dir)
}

// tighten gives the copies the modes that Init gave the originals.
func tighten(t *testing.T, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if fi.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return os.Chmod(p, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start runs the server until halt, and waits until it is ready.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx, r.cfg, testLog(r.t)) }()
	r.stop = func() error { cancel(); return <-done }
	r.reach(done)
}

// reach waits until the server is ready, unless it has ended.
func (r *rig) reach(done <-chan error) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		select {
		case err := <-done:
			r.t.Fatalf("server ended: %v", err)
		default:
		}
		addr, err := server.ReadAddresses(r.cfg.DataDir)
		if err == nil {
			r.addr = addr
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("server is not ready: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	var err error
	if r.admin, r.conn, err = admin.Dial(r.addr.Admin); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) halt() {
	r.t.Helper()
	_ = r.conn.Close()
	if err := r.stop(); err != nil {
		r.t.Errorf("server: %v", err)
	}
	r.stop = nil
}

func testLog(t *testing.T) *slog.Logger {
	if os.Getenv("SIGNET_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func (r *rig) apply(manifests string) *api.ApplyResponse {
	r.t.Helper()
	resp, err := r.tryApply(manifests)
	if err != nil {
		r.t.Fatalf("apply: %v", err)
	}
	return resp
}

func (r *rig) tryApply(manifests string) (*api.ApplyResponse, error) {
	return r.admin.Apply(r.t.Context(), &api.ApplyRequest{Sources: []*api.Source{{File: "test.yaml", Content: []byte(manifests)}}})
}

func (r *rig) token(group string) string {
	r.t.Helper()
	resp, err := r.admin.CreateToken(r.t.Context(), &api.CreateTokenRequest{Group: group})
	if err != nil {
		r.t.Fatalf("token: %v", err)
	}
	return resp.GetToken()
}

// host is a machine with a host key; joined, it is an agent.
type host struct {
	t       *testing.T
	rig     *rig
	hostKey tls.Certificate
	key     *ecdsa.PrivateKey
	id      string
	svid    tls.Certificate
	roots   identity.RootSet
	conn    *grpc.ClientConn
	// instance is which run of the agent this is.
	instance runOf
}

// runOf is sent with each call, as agents do.
type runOf string

func (r runOf) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"signet-instance": string(r)}, nil
}

func (runOf) RequireTransportSecurity() bool { return true }

func newHost(r *rig) *host {
	return &host{t: r.t, rig: r, hostKey: selfSigned(r.t), key: newKey(r.t), instance: runOf(rand.Text())}
}

// attest asks with a token in full, or with none.
func (h *host) attest(token string) error {
	var secret string
	var pin []byte
	if token != "" {
		parsed, err := jointoken.Parse(token)
		if err != nil {
			return err
		}
		secret, pin = parsed.SecretText(), parsed.Pin[:]
	}
	conn := dial(h.t, h.rig.addr.Agents, h.hostKey, pin, grpc.WithPerRPCCredentials(h.instance))
	req := &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "Web-01.corp.example"}
	if secret != "" {
		req.Evidence = &api.AttestRequest_JoinToken{JoinToken: secret}
	}
	resp, err := api.NewAgentAPIClient(conn).Attest(h.t.Context(), req)
	if err != nil {
		return err
	}
	roots, err := identity.ParseRootSet(resp.GetSignedRootSet(), pin)
	if err != nil {
		return err
	}
	h.id, h.roots = resp.GetAgentId(), roots
	h.svid = tls.Certificate{Certificate: resp.GetChain(), PrivateKey: h.key}
	h.conn = dial(h.t, h.rig.addr.Agents, h.svid, nil, grpc.WithPerRPCCredentials(h.instance))
	return nil
}

// join makes an agent of a group.
func (r *rig) join(group string) *host {
	r.t.Helper()
	h := newHost(r)
	if err := h.attest(r.token(group)); err != nil {
		r.t.Fatalf("join: %v", err)
	}
	return h
}

func (h *host) spiffeID() string { return "spiffe://" + trustDomain + "/signet/agent/" + h.id }

func (h *host) api() api.AgentAPIClient { return api.NewAgentAPIClient(h.conn) }

// issue asks for one SVID of each entry.
func (h *host) issue(entries ...string) ([]*api.SVIDResult, error) {
	req := &api.IssueRequest{}
	for _, e := range entries {
		req.Requests = append(req.Requests, &api.SVIDRequest{Entry: e, Csr: newCSR(h.t, newKey(h.t))})
	}
	resp, err := h.api().Issue(h.t.Context(), req)
	return resp.GetResults(), err
}

// dial connects as an agent does that has a pin: the chain must hold the root of
// which the pin is.
func dial(t *testing.T, addr string, cert tls.Certificate, pin []byte, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		InsecureSkipVerify: true, //nolint:gosec // verified below, by pin
		//nolint:gosec // each call has a config of its own: nothing is resumed
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if pin == nil {
				return nil
			}
			return verifyByPin(raw, pin)
		},
	}
	if len(cert.Certificate) == 0 {
		cfg.Certificates = nil
	}
	conn, err := grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func verifyByPin(raw [][]byte, pin []byte) error {
	var certs []*x509.Certificate
	for _, der := range raw {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		certs = append(certs, c)
	}
	root := certs[len(certs)-1]
	if sum := sha256.Sum256(root.RawSubjectPublicKeyInfo); string(sum[:]) != string(pin) {
		return errors.New("the last certificate is not the pinned root")
	}
	td, err := identity.ParseTrustDomain(trustDomain)
	if err != nil {
		return err
	}
	id, err := identity.VerifyChain(certs[:len(certs)-1], td, identity.PoolOf(root), time.Now(), x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if name, ok := identity.ServerName(id); !ok || name != "server" {
		return errors.New("not the server: " + id.String())
	}
	return nil
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// leafID is the SPIFFE ID of an answer's leaf.
func leafID(t *testing.T, chain [][]byte) string {
	t.Helper()
	if len(chain) == 0 {
		return ""
	}
	c, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(c.URIs) != 1 {
		t.Fatalf("%d URIs", len(c.URIs))
	}
	return c.URIs[0].String()
}

func wantCode(t *testing.T, err error, want codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("code %s, want %s: %v", status.Code(err), want, err)
	}
	for _, p := range parts {
		if err != nil && !strings.Contains(err.Error(), p) {
			t.Errorf("error lacks %q:\n%v", p, err)
		}
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// registry is two groups and what hangs on them.
const registry = `
apiVersion: signet.example/v1alpha1
kind: NodeGroup
metadata: {name: front}
spec: {}
---
apiVersion: signet.example/v1alpha1
kind: NodeGroup
metadata: {name: back}
spec: {}
---
apiVersion: signet.example/v1alpha1
kind: Entry
metadata: {name: job}
spec: {group: front, spiffeID: "spiffe://test.example/batch/job", selectors: ["unix:uid:1000"], ttl: 30m}
---
apiVersion: signet.example/v1alpha1
kind: Entry
metadata: {name: secret}
spec: {group: back, spiffeID: "spiffe://test.example/vault", selectors: ["unix:uid:0"]}
`

// shop is a mesh of two nodes; web calls orders.
const shop = `
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec:
  listeners:
    - portMapping: {port: 8080, protocol: http}
  backends:
    - virtualService: {virtualServiceRef: {name: orders}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners:
    - portMapping: {port: 8080, protocol: http}
  serviceDiscovery:
    dns: {hostname: orders.internal}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec:
  provider:
    virtualNode: {virtualNodeRef: {name: orders}}
---
apiVersion: signet.example/v1alpha1
kind: Binding
metadata: {name: web}
spec: {group: front, mesh: shop, virtualNode: web, selectors: ["signet:proxy:web"]}
---
apiVersion: signet.example/v1alpha1
kind: Binding
metadata: {name: orders}
spec: {group: back, mesh: shop, virtualNode: orders, selectors: ["signet:proxy:orders"]}
`

func (r *rig) ban(id string) *api.BanAgentResponse {
	r.t.Helper()
	resp, err := r.admin.BanAgent(r.t.Context(), &api.BanAgentRequest{Agent: id, Reason: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// serialOf is an answer's leaf's serial, as the log and reports write it.
func serialOf(t *testing.T, chain [][]byte) string {
	t.Helper()
	c, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(c.SerialNumber.Bytes())
}

// newRigLogged is newRig with the log that a server of its own process has.
func newRigLogged(t *testing.T, out io.Writer) *rig {
	t.Helper()
	return newRigWith(t, func(ctx context.Context, cfg server.Config, _ *slog.Logger) error {
		return runInProcess(ctx, cfg, slog.New(sampled.NewHandler(slog.NewTextHandler(out, nil))))
	})
}

// safeBuffer is written by many.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Len()
}

func (b *safeBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// dialFrom connects from an address of this host's own.
func dialFrom(t *testing.T, addr string, cert tls.Certificate, from net.IP) *grpc.ClientConn {
	t.Helper()
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} //nolint:gosec // a stranger does not care
	if len(cert.Certificate) > 0 {
		cfg.Certificates = []tls.Certificate{cert}
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // closed already, often
	return conn
}
