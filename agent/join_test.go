package agent_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/agent"
	"signet.example/attestation/x509pop"
	"signet.example/test/parts"
)

// join runs an agent that is expected to end by itself.
func join(t *testing.T, server, token string, change func(*agent.Config)) error {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := agent.Config{Server: server, SocketDir: filepath.Join(dir, "s"), DataDir: filepath.Join(dir, "data"), Metrics: "127.0.0.1:0", TokenFile: file}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	return agent.Run(ctx, cfg, slog.New(slog.DiscardHandler))
}

func TestAJoinEndsWithAClearErrorWhereItCannotWork(t *testing.T) {
	f, other := newFakeServer(t), newFakeServer(t)
	used := f.token()
	f.change(func(f *fakeServer) { clear(f.tokens) })
	for name, c := range map[string]struct {
		token, want string
		change      func(*agent.Config)
	}{
		"used token":           {token: used, want: "no such token"},
		"no token":             {token: "", want: "signet token create"},
		"not a token":          {token: "hello", want: "not a join token"},
		"another trust domain": {token: f.token(), want: "other.example", change: func(c *agent.Config) { c.TrustDomain = "other.example" }},
		"another server's pin": {token: other.token(), want: "pin"},
	} {
		t.Run(name, func(t *testing.T) {
			err := join(t, f.addr, c.token, c.change)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something of %q", err, c.want)
			}
		})
	}
}

// Whoever answers in the server's place learns nothing: the secret is sent only
// after the pinned root has vouched for who is there.
func TestTheTokenIsNotSentToAServerWithoutThePinnedKey(t *testing.T) {
	f, impostor := newFakeServer(t), newFakeServer(t)
	if err := join(t, impostor.addr, f.token(), nil); err == nil {
		t.Fatal("joined")
	}
	impostor.mu.Lock()
	defer impostor.mu.Unlock()
	if impostor.attests != 0 {
		t.Error("the impostor was asked")
	}
}

// Nor does whoever answers in the place of the server learn a host's evidence.
func TestAHostsEvidenceIsNotGivenToAServerWithoutTheRootOfItsTrustFile(t *testing.T) {
	f, impostor := newFakeServer(t), newFakeServer(t)
	certificate, key := parts.NewHostCA(t, "hosts").Host("web-01")
	by := func(c *agent.Config) {
		c.TokenFile, c.Trust = "", parts.WriteCerts(t, f.root)
		c.Join.X509PoP = x509pop.Host{Certificate: certificate, Key: key}
	}
	err := join(t, impostor.addr, "", by)
	if err == nil || !strings.Contains(err.Error(), "is the root in trust another server's? The key trust names /") || strings.Contains(err.Error(), "token") {
		t.Errorf("got %v", err)
	}
	impostor.mu.Lock()
	asked := impostor.attests
	impostor.mu.Unlock()
	if asked != 0 {
		t.Error("the impostor was asked")
	}
	if err := join(t, f.addr, "", by); err == nil || !strings.Contains(err.Error(), "not known here") || strings.Contains(err.Error(), "NodeGroup") {
		t.Errorf("the server, which knows no certificates: %v", err)
	}
}

func TestASecondAgentOnTheSameSocketsIsRefused(t *testing.T) {
	r := newRig(t, nil)
	err := join(t, r.addr, r.token(), func(c *agent.Config) { c.SocketDir = r.dir })
	if err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("got %v", err)
	}
}
