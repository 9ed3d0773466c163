package meshtest

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
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/attestation/jointoken"
)

// Host is an agent of the test's own: it joins the server as an agent does and
// asks for certificates, without Envoys or sockets.
type Host struct {
	ID       string
	spiffeID string
	t        testing.TB
	conn     *grpc.ClientConn
	api      api.AgentAPIClient
}

// JoinHost makes a Host with a fresh token. It does not check the server: that is
// the real agent's matter, with tests of its own.
func (w *World) JoinHost() *Host {
	w.T.Helper()
	h, err := w.TryJoinHost(w.Token())
	if err != nil {
		w.T.Fatalf("attest: %v", err)
	}
	return h
}

// TryJoinHost joins with a token that may not be good any more; the error is the
// server's answer. It may be called by several goroutines of the test.
func (w *World) TryJoinHost(text string) (*Host, error) {
	addresses, err := w.Addresses(w.ServerDir())
	if err != nil {
		return nil, err
	}
	token, err := jointoken.Parse(text)
	if err != nil {
		return nil, err
	}
	dial := func(cert tls.Certificate) (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient(addresses.Agents, grpc.WithTransportCredentials(credentials.NewTLS(
			&tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}})), //nolint:gosec // see above
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}, MinConnectTimeout: 10 * time.Second}))
		if err == nil {
			w.T.Cleanup(func() { _ = conn.Close() })
		}
		return conn, err
	}
	key := Key(w.T)
	joining, err := dial(selfSigned(w.T, Key(w.T)))
	if err != nil {
		return nil, err
	}
	answer, err := api.NewAgentAPIClient(joining).Attest(w.Context(),
		&api.AttestRequest{Evidence: &api.AttestRequest_JoinToken{JoinToken: token.SecretText()}, Csr: CSR(w.T, key), Hostname: "test"})
	if err != nil {
		return nil, err
	}
	conn, err := dial(tls.Certificate{Certificate: answer.GetChain(), PrivateKey: key})
	if err != nil {
		return nil, err
	}
	spiffeID := "spiffe://" + w.TD + "/signet/agent/" + answer.GetAgentId()
	return &Host{ID: answer.GetAgentId(), spiffeID: spiffeID, t: w.T, conn: conn, api: api.NewAgentAPIClient(conn)}, nil
}

// Conn is the host's connection to the server; it comes back by itself.
func (h *Host) Conn() grpc.ClientConnInterface { return h.conn }

// Resources of a type in the first complete set that the server sends the host
// as an agent.
func (h *Host) Resources(typeURL string) []*ads.Resource {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	var out []*ads.Resource
	complete := false
	client := &ads.Client{
		Conn: h.conn, Node: &corev3.Node{Id: h.spiffeID}, Types: []string{typeURL},
		OnSet: func(set *ads.Set, _ *ads.Resource) {
			out, complete = set.Type(typeURL), true
			cancel()
		},
	}
	if err := client.Run(ctx); !complete {
		h.t.Fatalf("resources of type %s: %v", typeURL, err)
	}
	return out
}

// Issue asks for certificates of an entry, one for each CSR, and gives the
// leaves that came. A server that is being killed answers with errors.
func (h *Host) Issue(ctx context.Context, entry string, csrs ...[]byte) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req := &api.IssueRequest{}
	for _, csr := range csrs {
		req.Requests = append(req.Requests, &api.SVIDRequest{Entry: entry, Csr: csr})
	}
	answer, err := h.api.Issue(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, r := range answer.GetResults() {
		if len(r.GetChain()) == 0 {
			err = fmt.Errorf("refused: %s", r.GetError())
			continue
		}
		leaf, parseErr := x509.ParseCertificate(r.GetChain()[0])
		if parseErr != nil {
			return out, parseErr
		}
		out = append(out, leaf)
	}
	return out, err
}

// SerialText is a serial as `signet certs` writes it.
func SerialText(n *big.Int) string { return hex.EncodeToString(n.Bytes()) }

// Key makes a P-256 key.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// CSR makes a request that proves possession of key and asks for nothing.
func CSR(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func selfSigned(t testing.TB, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
