package files

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/resources"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/private"
	"signet.example/internal/watched"
	"signet.example/test/parts"
)

// memory is a folder on a tmpfs through which everybody may pass.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sf")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		parts.Missing(t, "a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// rig is a host's folders under test, with its authority.
type rig struct {
	t      testing.TB
	dir    string
	root   *svidstest.Root
	issuer *svidstest.Root
	keeper *svids.Keeper
	state  watched.Value[*resources.Snapshot]
	trust  watched.Value[*svids.Trust]
	*Folders
	end func() // ends Run, if it was begun
}

func newRig(t testing.TB, change ...func(*Parts)) *rig {
	t.Helper()
	r := &rig{t: t, dir: memory(t), root: svidstest.NewRoot(t)}
	r.issuer = r.root.Issuing()
	r.issuer.Cert, r.issuer.Key = r.root.Sign(svidstest.Domain.ID(), &x509.Certificate{Subject: pkix.Name{CommonName: "issuing"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	r.trust.Set(trustOf(r.root))
	r.keeper = svids.NewKeeper(nil, svids.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	r.open(change...)
	return r
}

func trustOf(roots ...*svidstest.Root) *svids.Trust {
	t := &svids.Trust{Roots: identity.RootSet{TrustDomain: svidstest.Domain}}
	for _, r := range roots {
		t.Roots.Roots, t.DER = append(t.Roots.Roots, r.Cert), append(t.DER, r.Cert.Raw)
	}
	t.Pool = t.Roots.Pool()
	return t
}

// open is an agent's start.
func (r *rig) open(change ...func(*Parts)) {
	r.t.Helper()
	root, err := Open(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(root.Close)
	p := Parts{
		Root: root, Owners: []child.User{{UID: private.Self(), GID: uint32(os.Getegid())}}, //nolint:gosec // a gid has 32 bits
		State: &r.state, SVIDs: r.keeper, Trust: &r.trust, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&p)
	}
	r.Folders = New(p)
}

// entry is one with files in a folder.
func entry(name, folder, uid string, since uint64) *api.Entry {
	return &api.Entry{Name: name, SpiffeId: "spiffe://test.example/" + name, Selectors: []string{"unix:uid:" + uid}, Since: since, Files: &api.EntryFiles{Folder: folder}}
}

// told are the entries that the servers have now.
func (r *rig) told(entries ...*api.Entry) {
	r.t.Helper()
	s := resources.New(svidstest.Domain, resourcestest.Set(r.t, entries...), nil, nil, resources.OfProcesses)
	if len(s.Problems) > 0 {
		r.t.Fatal(s.Problems)
	}
	r.keeper.Retain(s.Grants)
	r.state.Set(s)
}

// issue is an SVID for an entry, with a new key.
func (r *rig) issue(name string) *svids.SVID {
	r.t.Helper()
	id := spiffeid.RequireFromPath(svidstest.Domain, "/"+name)
	leaf, key := r.issuer.Sign(id, &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}})
	s, err := svids.New(name, [][]byte{leaf.Raw, r.issuer.Cert.Raw, r.root.Cert.Raw}, key, trustOf(r.root), time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.keeper.Install(s)
	return s
}

// once is one look of Run's.
func (r *rig) once() {
	r.t.Helper()
	r.keep(r.t.Context(), r.state.Load(), r.keeper.Held(), r.trust.Load())
}

// begin runs the folders.
func (r *rig) begin() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.end = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		r.end = func() {}
	}
	r.t.Cleanup(func() { r.end() })
}

func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("waited in vain for %s; problems: %q", what, r.Problems())
}

// blocks are those of a PEM file as the standard wants it: with nothing between them.
func blocks(content []byte) ([]*pem.Block, error) {
	var list []*pem.Block
	for len(content) > 0 {
		b, rest := pem.Decode(content)
		if b == nil {
			return nil, errors.New("text that is no block")
		}
		if len(b.Headers) > 0 || string(pem.EncodeToMemory(b)) != string(content[:len(content)-len(rest)]) {
			return nil, errors.New("headers, or text beside the blocks")
		}
		list, content = append(list, b), rest
	}
	return list, nil
}

// read reads a credential bundle as an application does, in one open, and returns the leaf.
func read(path string, roots *x509.CertPool) (*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := blocks(content)
	if err != nil {
		return nil, err
	}
	if len(list) < 2 || list[0].Type != "PRIVATE KEY" {
		return nil, errors.New("it does not begin with the key")
	}
	var certs []byte
	for _, b := range list[1:] {
		if b.Type != "CERTIFICATE" {
			return nil, errors.New("a block of type " + b.Type)
		}
		certs = append(certs, pem.EncodeToMemory(b)...)
	}
	pair, err := tls.X509KeyPair(certs, pem.EncodeToMemory(list[0])) // the key is the leaf's
	if err != nil {
		return nil, err
	}
	between := x509.NewCertPool()
	between.AppendCertsFromPEM(certs)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return pair.Leaf, err
}

func names(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func (r *rig) path(parts ...string) string {
	return filepath.Join(append([]string{r.dir}, parts...)...)
}

// pairs checks that the key is the leaf's.
func pairs(chain, key []byte) error {
	_, err := tls.X509KeyPair(chain, key)
	return err
}
