package sds_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/identity"
	"signet.example/sds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var td = spiffeid.RequireTrustDomainFromString("test.example")

// authority is a CA of one key.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{td.ID().URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// svid issues an SVID for the path.
func (a authority) svid(t testing.TB, path string) sds.SVID {
	t.Helper()
	id := spiffeid.RequireFromPath(td, path)
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs: []*url.URL{id.URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return sds.SVID{ID: id, Chain: [][]byte{der}, Key: key}
}

func (a authority) bundles() map[string][][]byte {
	return map[string][][]byte{td.IDString(): {a.cert.Raw}}
}

// script is a Source that sends what comes in updates, and ends with end.
type script struct {
	updates chan sds.Update
	end     chan error
	// careless does not attest before it sends.
	careless bool
	// first is sent on each stream before updates.
	first *sds.Update
}

func newScript() *script {
	return &script{updates: make(chan sds.Update, 8), end: make(chan error, 1)}
}

func (s *script) Watch(ctx context.Context, selectors func(context.Context) (identity.Selectors, error), send func(sds.Update) error) error {
	if s.first != nil {
		_, err := selectors(ctx)
		if err := errors.Join(err, send(*s.first)); err != nil {
			return err
		}
	}
	for {
		select {
		case u := <-s.updates:
			if !s.careless {
				if _, err := selectors(ctx); err != nil {
					return err
				}
			}
			if err := send(u); err != nil {
				return err
			}
		case err := <-s.end:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// api is a Workload API on a Unix socket.
type api struct {
	workload.SpiffeWorkloadAPIClient
	source   *script
	address  string
	attested atomic.Int32
	refuse   atomic.Bool
}

func serve(t testing.TB) *api {
	t.Helper()
	return serveLogging(t, slog.New(slog.DiscardHandler))
}

func serveLogging(t testing.TB, log *slog.Logger) *api {
	t.Helper()
	a := &api{source: newScript()}
	path := filepath.Join(t.TempDir(), "w.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	sds.NewWorkloadAPI(a.source, func(context.Context) (identity.Selectors, error) {
		a.attested.Add(1)
		if a.refuse.Load() {
			return nil, errors.New("the process is gone")
		}
		return identity.Selectors{{Type: "unix", Value: "uid:1"}}, nil
	}, log).Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	a.address = "unix://" + path
	conn, err := grpc.NewClient(a.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	a.SpiffeWorkloadAPIClient = workload.NewSpiffeWorkloadAPIClient(conn)
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return a
}
