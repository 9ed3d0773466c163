package join

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/attestation/k8spsat"
	"signet.example/attestation/nodes"
	"signet.example/test/parts"
)

// pods are what a server knows of the tokens of pods.
type pods struct {
	shown int
	used  map[string]bool
}

// use uses a token up, unread, and reports whether nobody had before.
func (p *pods) use(token string) (first bool) {
	p.shown++
	if p.used == nil {
		p.used = map[string]bool{}
	}
	first, p.used[token] = !p.used[token], true
	return first
}

// tokens is how many were shown.
func (s *aServer) tokens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods.shown
}

// aPod is how a pod joins, by a token in a file that next writes anew.
func (s *aServer) aPod(t *testing.T) (ways Ways, next func()) {
	t.Helper()
	c := parts.NewCluster(t)
	sign := func() string {
		return c.Sign(c.Claims(parts.Pod{Namespace: "shop", ServiceAccount: "web", Name: "web-1", UID: "4f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"}, "signet:"+s.root.Trust(1).Roots.TrustDomain.Name()))
	}
	file := c.Project(sign())
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Cert.Raw})
	return Ways{Own: nodes.HostConfig{K8sPSAT: k8spsat.Host{TokenFile: file}}, TrustPEM: string(root)}, func() {
		if err := os.WriteFile(file, []byte(sign()), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// A9-75: it showed the token that it had used itself until the kubelet wrote another one.
func TestAPodWhoseJoinHadNoAnswerComesInByItsKey(t *testing.T) {
	s := newServer(t)
	ways, _ := s.aPod(t)
	s.away = 2 // the join, and the first time that it is known by its key
	svid, _, err := s.enter(t, ownFolder(t), ways)
	if err != nil || svid.ID.Path() != "/signet/agent/one" {
		t.Fatalf("%v, %v", svid, err)
	}
	if n := s.tokens(); n != 2 {
		t.Errorf("its token was shown %d times", n)
	}
}

// The same where the agent ended meanwhile, and kept its data_dir.
func TestAPodWhoseAgentEndedBeforeTheAnswerComesInByItsKey(t *testing.T) {
	s, path := newServer(t), ownFolder(t)
	ways, _ := s.aPod(t)
	s.away = 1
	ended, end := context.WithCancelCause(t.Context())
	s.log = slog.New(onRecord{func() { end(errors.New("the container ends")) }})
	if _, _, err := s.enterUntil(ended, t, path, ways); status.Code(err) != codes.Unavailable {
		t.Fatalf("%v", err)
	}
	s.log = nil
	if _, _, err := s.enter(t, path, ways); err != nil || s.tokens() != 2 {
		t.Errorf("shown %d times: %v", s.tokens(), err)
	}
}

func TestATokenThatWasUsedIsNotShownAgainUntilThereIsAnother(t *testing.T) {
	s := newServer(t)
	ways, next := s.aPod(t)
	if _, _, err := s.enter(t, ownFolder(t), ways); err != nil {
		t.Fatal(err)
	}
	tried := 0
	s.log = slog.New(onRecord{func() {
		if tried++; tried == 3 {
			next()
		}
	}})
	_, _, err := s.enter(t, ownFolder(t), ways) // its folder is gone, and its key
	if err != nil || tried != 3 || s.tokens() != 3 {
		t.Errorf("%v; tried %d times in vain, and shown %d times", err, tried, s.tokens())
	}
}

// onRecord has somebody told of each record of a log.
type onRecord struct{ told func() }

func (onRecord) Enabled(context.Context, slog.Level) bool { return true }

func (o onRecord) Handle(context.Context, slog.Record) error {
	o.told()
	return nil
}

func (o onRecord) WithAttrs([]slog.Attr) slog.Handler { return o }
func (o onRecord) WithGroup(string) slog.Handler      { return o }

// N18-40: a host whose own evidence is wrong logged that no server answers, and its operator looked at the network.
func TestAHostThatHasNothingToShowDoesNotSayThatNoServerAnswers(t *testing.T) {
	s, log := newServer(t), new(bytes.Buffer)
	ways, next := s.aPod(t)
	if err := os.WriteFile(ways.Own.K8sPSAT.TokenFile, []byte("e30.e30.AAAA"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.log = slog.New(slog.NewTextHandler(io.MultiWriter(log, onWrite(next)), nil))
	if _, _, err := s.enter(t, ownFolder(t), ways); err != nil {
		t.Fatal(err)
	}
	said := log.String()
	if !strings.Contains(said, "nothing is asked of it, trying again") || !strings.Contains(said, "join.k8s_psat.token_file") || strings.Contains(said, "no server answers") {
		t.Errorf("it says %s", said)
	}
}

// onWrite does something at each write.
type onWrite func()

func (o onWrite) Write(p []byte) (int, error) {
	o()
	return len(p), nil
}
