package join

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/attestation/jointoken"
)

// aServer attests hosts by one token or by their keys, as the trust domain of its root.
type aServer struct {
	api.UnimplementedAgentAPIServer

	root  *svidstest.Root
	addr  string
	token jointoken.Token // good once

	joining func()       // where it is set: called before the answer to a token
	log     *slog.Logger // of the agents; nil for none
	tasks   bool         // what AWS signed for a task is taken, unread

	mu    sync.Mutex
	pods  pods               // guarded by mu
	away  int                // how many that are let in get no certificate: no signer answers; guarded by mu
	agent string             // the id that the next one has who joins; guarded by mu
	spent bool               // guarded by mu
	hosts map[[32]byte]error // how each host key is answered; guarded by mu
}

func newServer(t *testing.T) *aServer {
	t.Helper()
	root := svidstest.NewRoot(t)
	leaf, key := root.Leaf("/signet/server/one")
	token, err := jointoken.New(root.Pin())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &aServer{root: root, addr: l.Addr().String(), token: token, agent: "one", hosts: map[[32]byte]error{}}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, root.Cert.Raw}, PrivateKey: key}},
	})))
	api.RegisterAgentAPIServer(g, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = g.Serve(l) // until it is stopped
	}()
	t.Cleanup(func() { g.Stop(); <-served })
	return s
}

// Attest implements api.AgentAPIServer.
func (s *aServer) Attest(ctx context.Context, req *api.AttestRequest) (*api.AttestResponse, error) {
	p, _ := peer.FromContext(ctx)
	shown := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates //nolint:forcetypeassert // as it serves
	host := sha256.Sum256(shown[0].RawSubjectPublicKeyInfo)
	s.mu.Lock()
	defer s.mu.Unlock()
	refused, known := s.hosts[host]
	switch {
	case req.GetJoinToken() != "" && (s.spent || req.GetJoinToken() != s.token.SecretText()):
		return nil, status.Error(codes.PermissionDenied, "no such token")
	case req.GetJoinToken() != "":
		s.spent, s.hosts[host] = true, nil
		if s.joining != nil {
			s.joining()
		}
	case req.GetK8SPsat() != nil:
		if !s.pods.use(req.GetK8SPsat().GetToken()) {
			return nil, status.Error(codes.AlreadyExists, "it was used before")
		}
		s.hosts[host] = nil
	case req.GetAwsTask() != nil && s.tasks:
		s.hosts[host] = nil
	case req.GetAwsTask() != nil:
		return nil, status.Error(codes.PermissionDenied, "no such role")
	case !known:
		return nil, status.Error(codes.Unauthenticated, "this host key is not known here")
	case refused != nil:
		return nil, refused
	}
	if s.away > 0 {
		s.away--
		return nil, status.Error(codes.Unavailable, "no signer answers")
	}
	csr, err := x509.ParseCertificateRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	id := spiffeid.RequireFromPath(svidstest.Domain, "/signet/agent/"+s.agent)
	chain, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs: append(csr.URIs, id.URL()),
	}, s.root.Cert, csr.PublicKey, s.root.Key)
	if err != nil {
		return nil, err
	}
	return &api.AttestResponse{AgentId: s.agent, Chain: [][]byte{chain}, SignedRootSet: s.root.RootSet(1, s.root.Cert)}, nil
}

// answers sets how the hosts that joined are answered.
func (s *aServer) answers(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for host := range s.hosts {
		s.hosts[host] = err
	}
}

// forget has no host joined, and whom the next that does is.
func (s *aServer) forget(next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.hosts)
	s.agent = next
}

// enter is one run of an agent, until it has its first SVID.
func (s *aServer) enter(t *testing.T, path string, ways Ways) (*svids.SVID, *Enrolment, error) {
	t.Helper()
	return s.enterUntil(t.Context(), t, path, ways)
}

// enterUntil is enter with an end.
func (s *aServer) enterUntil(ctx context.Context, t *testing.T, path string, ways Ways) (*svids.SVID, *Enrolment, error) {
	t.Helper()
	dir, err := OpenDir(path)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	log := s.log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e, err := New(Config{Server: s.addr, Attested: prometheus.NewCounter(prometheus.CounterOpts{Name: "n"}), Log: log}, dir)
	if err != nil {
		return nil, nil, err
	}
	svid, err := e.Enter(ctx, ways)
	return svid, e, err
}

func (s *aServer) byToken() Ways { return Ways{environment: s.token.Reveal()} }

func ownFolder(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o700), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAHostEntersByItsTokenAndComesBackByItsKey(t *testing.T) {
	s, path := newServer(t), ownFolder(t)
	if joined, running, err := CheckDir(path); joined || running || err != nil {
		t.Errorf("before: %v %v %v", joined, running, err)
	}
	if _, _, err := s.enter(t, path, Ways{}); !errors.Is(err, ErrNoToken) {
		t.Errorf("without a token: %v", err)
	}
	for _, ways := range []Ways{s.byToken(), {}} {
		svid, e, err := s.enter(t, path, ways)
		if err != nil {
			t.Fatal(err)
		}
		if svid.Entry != svids.Own || svid.ID.Path() != "/signet/agent/one" || e.Trust().Roots.Number != 1 {
			t.Errorf("%s for %q, by roots %d", svid.ID, svid.Entry, e.Trust().Roots.Number)
		}
	}
	if joined, running, err := CheckDir(path); !joined || running || err != nil {
		t.Errorf("afterwards: %v %v %v", joined, running, err)
	}
	if _, _, err := s.enter(t, ownFolder(t), s.byToken()); status.Code(err) != codes.PermissionDenied || !errors.Is(err, ErrNoToken) {
		t.Errorf("another host with the same token: %v", err)
	}
}

func TestAHostWhoseStandingCouldNotBeWrittenAtTheJoinComesBackByItsKey(t *testing.T) {
	s, path := newServer(t), ownFolder(t)
	away := path + ".away"
	s.joining = func() { // as a disk that is full for a moment
		if err := os.Rename(path, away); err != nil {
			t.Error(err)
		}
	}
	_, e, err := s.enter(t, path, s.byToken())
	if err := errors.Join(err, os.Rename(away, path)); err != nil {
		t.Fatal(err)
	}
	_, first, err := e.dir.load()
	if err != nil || first.AgentID != "" || first.RootSet != "" {
		t.Fatalf("kept before the write was possible again: %+v, %v", first, err)
	}
	e.Keep(e.Trust()) // as with the first set of its own resources, of the same roots
	if _, k, err := e.dir.load(); err != nil || k.AgentID != "one" || k.RootSet == "" {
		t.Errorf("kept afterwards: %+v, %v", k, err)
	}
	if _, _, err := s.enter(t, path, Ways{}); err != nil {
		t.Errorf("at the next start: %v", err)
	}
}

func TestARefusalOfAHostThatJoinedSaysWhatToDo(t *testing.T) {
	s, path := newServer(t), ownFolder(t)
	if _, _, err := s.enter(t, path, s.byToken()); err != nil {
		t.Fatal(err)
	}
	for want, refusal := range map[string]error{
		"move " + path + " away, and start the agent with one of these":   status.Error(codes.PermissionDenied, "banned"),
		"if " + path + " is a copy of another host's":                     status.Error(codes.FailedPrecondition, "connected from elsewhere"),
		"to join, a host needs a token: run `signet token create --group": status.Error(codes.Unauthenticated, "forgotten"),
	} {
		s.answers(refusal)
		if _, _, err := s.enter(t, path, Ways{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", refusal, err, want)
		}
	}
}

// Container runtimes make a folder that is to be mounted and missing with mode 0755.
func TestAnEmptyFolderThatOthersMayReadIsClosedAndNoOther(t *testing.T) {
	for what, of := range map[string]struct {
		mode  os.FileMode
		file  bool
		taken bool
	}{
		"as a container runtime makes it":      {0o755, false, true},
		"with something in it":                 {0o755, true, false},
		"to which others may write":            {0o777, false, false},
		"to which its group may write":         {0o770, false, false},
		"that is closed, with something in it": {0o700, true, true},
	} {
		t.Run(what, func(t *testing.T) {
			path := ownFolder(t)
			if of.file {
				if err := os.WriteFile(filepath.Join(path, "note"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, of.mode); err != nil {
				t.Fatal(err)
			}
			if _, _, err := CheckDir(path); (err == nil) != of.taken {
				t.Errorf("a check: %v", err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != of.mode {
				t.Errorf("a check left %v, %v", info.Mode(), err)
			}
			dir, err := OpenDir(path)
			if err == nil {
				dir.Close()
			}
			if (err == nil) != of.taken {
				t.Errorf("a start: %v", err)
			}
			if of.taken {
				of.mode = 0o700
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != of.mode {
				t.Errorf("a start left %v, %v", info.Mode(), err)
			}
		})
	}
}

// Who can change a folder above would have the agent close any empty folder of its user's.
func TestAnEmptyFolderBelowOneOfOthersIsLeftAsItIs(t *testing.T) {
	above := ownFolder(t)
	path := filepath.Join(above, "data")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o755), os.Chmod(above, 0o777)); err != nil {
		t.Fatal(err)
	}
	if dir, err := OpenDir(path); err == nil {
		dir.Close()
		t.Error("it is taken")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("it has %v, %v", info.Mode(), err)
	}
}

func TestOneAgentHasAFolderAtATime(t *testing.T) {
	path := ownFolder(t)
	dir, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Writable(); err != nil {
		t.Error(err)
	}
	if _, err := OpenDir(path); !errors.Is(err, errDataDirInUse) {
		t.Errorf("a second one: %v", err)
	}
	if _, running, err := CheckDir(path); !running || err != nil {
		t.Errorf("looked at: %v, %v", running, err)
	}
	dir.Close()
	if dir, err = OpenDir(path); err != nil {
		t.Fatal(err)
	}
	dir.Close()
}
