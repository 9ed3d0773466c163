package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"signet.example/api"
	"signet.example/attestation"
	"signet.example/test/meshtest"
)

// look makes one connection and notes the serial of the listener's certificate.
func (s *seenSerials) look(cert *tls.Certificate) {
	conn, err := tls.Dial("tcp", s.address, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{*cert}}) //nolint:gosec // looks at what is shown
	if err != nil {
		s.t.Errorf("look at %s: %v", s.address, err)
		return
	}
	defer func() { _ = conn.Close() }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serials[serialText(conn.ConnectionState().PeerCertificates[0].SerialNumber)] = true
}

func serialText(n *big.Int) string { return hex.EncodeToString(n.Bytes()) }

// host is an agent of the test's own: it joins and asks for certificates, and
// remembers every one that it got.
type hostAgent struct {
	t     *testing.T
	creds credentials.TransportCredentials
	addr  string

	mu  sync.Mutex
	got map[string]bool
}

func join(t *testing.T, w *meshtest.World) *hostAgent {
	t.Helper()
	addresses, err := w.Addresses(w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	token, err := attestation.ParseToken(w.Token())
	if err != nil {
		t.Fatal(err)
	}
	hostKey := newKey(t)
	h := &hostAgent{t: t, addr: addresses["agents"], got: map[string]bool{}}
	h.creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, hostKey)}}) //nolint:gosec // the pin is attestation's own test
	key := newKey(t)
	var answer *api.AttestResponse
	h.call(func(ctx context.Context, c api.AgentAPIClient) error {
		answer, err = c.Attest(ctx, &api.AttestRequest{Token: token.SecretText(), Csr: csr(t, key), Hostname: "record-test"})
		return err
	})
	if err != nil {
		t.Fatalf("attest: %v", err)
	}
	h.creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // as above
		Certificates: []tls.Certificate{{Certificate: answer.GetChain(), PrivateKey: key}}})
	return h
}

func (h *hostAgent) call(f func(context.Context, api.AgentAPIClient) error) {
	conn, err := grpc.NewClient(h.addr, grpc.WithTransportCredentials(h.creds))
	if err != nil {
		h.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Second)
	defer cancel()
	_ = f(ctx, api.NewAgentAPIClient(conn)) // a server that is killed answers with errors
}

// issue asks for n certificates in one batch and remembers those that came.
func (h *hostAgent) issue(n int) {
	req := &api.IssueRequest{}
	for range n {
		req.Requests = append(req.Requests, &api.SVIDRequest{Entry: "record", Csr: csr(h.t, newKey(h.t))})
	}
	h.call(func(ctx context.Context, c api.AgentAPIClient) error {
		answer, err := c.Issue(ctx, req)
		if err != nil {
			return err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, r := range answer.GetResults() {
			if len(r.GetChain()) == 0 {
				continue
			}
			leaf, err := x509.ParseCertificate(r.GetChain()[0])
			if err != nil {
				return err
			}
			h.got[serialText(leaf.SerialNumber)] = true
		}
		return nil
	})
}

func (h *hostAgent) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.got)
}

func TestNoCertificateWithoutARecordThoughServerAndSignerAreKilled(t *testing.T) {
	kills := meshtest.Soak(15, 200)
	w := meshtest.Start(t, meshtest.Options{NoAgent: true, Lifetime: time.Hour,
		Manifests: "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: record}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/test/record\", selectors: [\"unix:uid:1\"]}\n"})
	h := join(t, w)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.issue(1 + i%4*3)
				}
			}
		})
	}
	for i := range kills {
		before := h.count()
		eventually(t, 20*time.Second, "issuance goes on", func() bool { return h.count() > before })
		time.Sleep(time.Duration(mathrand.IntN(150)) * time.Millisecond) // anywhere within an issuance
		signer := childPID(t, w.Server.PID(), "signer")
		if signer == 0 {
			t.Fatal("the server has no signer")
		}
		switch i % 3 {
		case 0: // the signer alone; the server starts another
			if err := syscall.Kill(signer, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		case 1: // the server alone; its signer ends with it
			w.KillServer()
			w.StartServer()
		default:
			_ = syscall.Kill(signer, syscall.SIGKILL) // both at once
			w.KillServer()
			w.StartServer()
		}
	}
	close(stop)
	wg.Wait()
	state := map[string]string{}
	for _, c := range certs(t, w, true) {
		state[c.GetSerial()] = c.GetState()
	}
	without := 0
	for serial := range h.got {
		if s, ok := state[serial]; !ok || s == "reserved" {
			without++
			t.Errorf("serial %s was received and its record is %q", serial, s)
		}
	}
	t.Logf("%d kills: %d certificates received, %d without a record, %d in the log", kills, len(h.got), without, len(state))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csr(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(fmt.Errorf("host key certificate: %w", err))
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
