package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/sds"
)

type svidStream = grpc.ServerStreamingClient[workload.X509SVIDResponse]

func (r *rig) fetch() svidStream {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	r.t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	stream, err := workload.NewSpiffeWorkloadAPIClient(r.dial("workload.sock")).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return stream
}

// fetchOnce takes one answer on a connection of its own.
func (r *rig) fetchOnce() (*workload.X509SVIDResponse, error) {
	r.t.Helper()
	conn := r.dial("workload.sock")
	defer func() { _ = conn.Close() }() // the answer is there
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	stream, err := workload.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

func next(t testing.TB, s svidStream) []string {
	t.Helper()
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, svid := range m.GetSvids() {
		ids = append(ids, svid.GetSpiffeId())
	}
	return ids
}

func TestAWorkloadGetsTheIdentitiesThatItsSelectorsFit(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{
			entry("mine", "/shop/mine", self(t)),
			entry("other", "/shop/other", "unix:path:/usr/bin/other"),
		}
	})
	r.await("the agent's state", func() bool { return len(r.lastReport().GetSvids()) > 0 })
	var ids []string
	r.await("an SVID", func() bool {
		m, err := r.fetchOnce()
		if err != nil {
			return false
		}
		for _, s := range m.GetSvids() {
			ids = append(ids, s.GetSpiffeId())
		}
		return true
	})
	if len(ids) != 1 || ids[0] != "spiffe://test.example/shop/mine" {
		t.Errorf("got %v", ids)
	}
}

// Streams cost memory and a look at each change; one process cannot take them all.
func TestAProcessThatOpensTooManyStreamsIsRefusedTheRest(t *testing.T) {
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{entry("one", "/shop/one", self(t))} })
	r.await("the first SVID", func() bool {
		_, err := r.fetchOnce()
		return err == nil
	})
	r.await("its stream's end", func() bool { return r.metric(`signet_agent_streams{socket="workload"}`) == "0" })
	const most, each = 256, 16
	ctx := metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true")
	for range most / each {
		client := workload.NewSpiffeWorkloadAPIClient(r.dial("workload.sock"))
		for range each {
			stream, err := client.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
			if err != nil {
				t.Fatal(err)
			}
			next(t, stream)
		}
	}
	if _, err := r.fetchOnce(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("stream %d: %v", most+1, err)
	}
}

func TestAProcessWithoutAnIdentityIsDenied(t *testing.T) {
	r := newRig(t, nil)
	r.await("the agent's state", func() bool {
		_, err := r.fetchOnce()
		return status.Code(err) == codes.PermissionDenied
	})
}

func TestANewEntryReachesAnOpenClientAtOnceAndARemovedOneIsTakenAway(t *testing.T) {
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{entry("one", "/shop/one", self(t))} })
	var stream svidStream
	r.await("the first SVID", func() bool {
		stream = r.fetch()
		_, err := stream.Recv()
		return err == nil
	})
	begun := time.Now()
	r.change(func(f *fakeServer) { f.entries = append(f.entries, entry("two", "/shop/two", self(t))) })
	if ids := next(t, stream); len(ids) != 2 {
		t.Errorf("got %v", ids)
	}
	took := time.Since(begun)
	t.Logf("entry to SVID: %s (goal 100 ms)", took)
	if took > 500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	r.change(func(f *fakeServer) { f.entries = f.entries[1:] })
	if ids := next(t, stream); len(ids) != 1 || ids[0] != "spiffe://test.example/shop/two" {
		t.Errorf("got %v", ids)
	}
	r.change(func(f *fakeServer) { f.entries = nil })
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

// An identity that the server will not or cannot issue must not hold up the one
// that is there.
func TestAnIdentityThatIsHeldDoesNotWaitForOneThatIsNot(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t)), entry("refused", "/shop/refused", self(t))}
		f.spoil = func(entry string, chain [][]byte) ([][]byte, error) {
			if entry == "entry/refused" {
				return nil, errors.New("not this one")
			}
			return chain, nil
		}
	})
	r.await("the first SVID", func() bool {
		_, err := r.fetchOnce()
		return err == nil
	})
	ask := func(when string) {
		begun := time.Now()
		m, err := r.fetchOnce()
		if err != nil || len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != "spiffe://test.example/shop/one" {
			t.Errorf("%s: %d SVIDs, %v", when, len(m.GetSvids()), err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%s: it took %s", when, took)
		}
	}
	ask("while the server refuses the other one")
	r.stop()
	r.await("the outage", func() bool { return r.metric("signet_agent_upstream_connected") == "0" })
	ask("while the server is gone")
}

// A server that answers nonsense, by a fault or on purpose, harms nobody who has
// a certificate, and nothing that it sent reaches a workload.
func TestNothingThatDoesNotVerifyIsGivenToAWorkload(t *testing.T) {
	other := newFakeServer(t)
	nonsense := map[string]func(f *fakeServer, path string, key *ecdsa.PublicKey) [][]byte{
		"another-root": func(_ *fakeServer, path string, key *ecdsa.PublicKey) [][]byte {
			return [][]byte{other.leaf(path, key, time.Hour).Raw}
		},
		"another-key": func(f *fakeServer, path string, _ *ecdsa.PublicKey) [][]byte {
			return [][]byte{f.leaf(path, &f.rootKey.PublicKey, time.Hour).Raw}
		},
		"another-identity": func(f *fakeServer, _ string, key *ecdsa.PublicKey) [][]byte {
			return [][]byte{f.leaf("/shop/fine", key, time.Hour).Raw}
		},
		"the-agents-own": func(f *fakeServer, _ string, key *ecdsa.PublicKey) [][]byte {
			return [][]byte{f.leaf("/signet/agent/one", key, time.Hour).Raw}
		},
		"already-ended": func(f *fakeServer, path string, key *ecdsa.PublicKey) [][]byte {
			return [][]byte{f.leaf(path, key, -time.Second).Raw}
		},
		"more-than-a-chain": func(f *fakeServer, path string, key *ecdsa.PublicKey) [][]byte {
			return [][]byte{f.leaf(path, key, time.Hour).Raw, other.leaf(path, key, time.Hour).Raw}
		},
		"the-root-alone": func(f *fakeServer, _ string, _ *ecdsa.PublicKey) [][]byte { return [][]byte{f.root.Raw} },
		"no-certificate": func(*fakeServer, string, *ecdsa.PublicKey) [][]byte { return [][]byte{[]byte("-----BEGIN")} },
		"an-empty-chain": func(*fakeServer, string, *ecdsa.PublicKey) [][]byte { return nil },
	}
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("fine", "/shop/fine", self(t))}
		for name := range nonsense {
			f.entries = append(f.entries, entry(name, "/shop/"+name, self(t)))
		}
		f.spoil = func(entry string, chain [][]byte) ([][]byte, error) {
			leaf, err := x509.ParseCertificate(chain[0])
			name := strings.TrimPrefix(entry, "entry/")
			if err != nil || nonsense[name] == nil {
				return chain, err
			}
			key, _ := leaf.PublicKey.(*ecdsa.PublicKey)
			return nonsense[name](f, "/shop/"+name, key), nil
		}
	})
	r.await("the one that verifies, and no other", func() bool {
		m, err := r.fetchOnce()
		return err == nil && len(m.GetSvids()) == 1 && m.GetSvids()[0].GetSpiffeId() == "spiffe://test.example/shop/fine"
	})
	refused, err := strconv.Atoi(r.metric(`signet_agent_svid_renew_failures_total{reason="bad_answer"}`))
	if err != nil || refused < len(nonsense) {
		t.Errorf("%d answers were refused, want at least %d (%v)", refused, len(nonsense), err)
	}
	r.change(func(f *fakeServer) { f.spoil = nil })
	r.await("all, of a server in its right mind", func() bool {
		m, err := r.fetchOnce()
		return err == nil && len(m.GetSvids()) == 1+len(nonsense)
	})
}

// The signer was away for longer than the agent's own SVID lives, and the connection
// stands: it was made with a certificate that nobody accepts any more.
func TestAnAgentWhoseSVIDEndedOnAStandingConnectionComesBackAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) {
		f.lifetime = 3 * time.Second // certificates are good to the second, and this machine may be busy
		f.refuse = status.Error(codes.Unavailable, "the signer is not there")
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t))}
	})
	attested := func() (n int) {
		r.change(func(f *fakeServer) { n = f.attests })
		return n
	}
	r.await("its SVID has ended", func() bool { return attested() > 1 })
	before := attested()
	r.change(func(f *fakeServer) { f.refuse, f.lifetime = nil, time.Hour })
	r.await("an SVID", func() bool {
		m, err := r.fetchOnce()
		return err == nil && len(m.GetSvids()) == 1
	})
	if n := attested() - before; n > 2 { // one may have been under way
		t.Errorf("attested %d times more", n)
	}
}

func TestSVIDsRotateGoOnInAnOutageAndResumeByThemselves(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) {
		f.lifetime = 4 * time.Second
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t))}
	})
	var stream svidStream
	r.await("the first SVID", func() bool {
		stream = r.fetch()
		_, err := stream.Recv()
		return err == nil
	})
	for range 2 {
		next(t, stream)
	}
	r.stop()
	// Longer than the agent's own SVID lives: it comes back by its host key.
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if m, err := r.fetchOnce(); err != nil {
			if code := status.Code(err); code != codes.Unavailable {
				t.Fatalf("during the outage: %v", err)
			}
		} else if len(m.GetSvids()) != 1 {
			t.Fatalf("during the outage: %d SVIDs", len(m.GetSvids()))
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.start()
	begun := time.Now()
	next(t, stream)
	t.Logf("rotation resumed %s after the server was back", time.Since(begun))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attests < 2 {
		t.Errorf("attested %d times", r.attests)
	}
}

func TestARefusedWorkloadIsLoggedWithWhatItIsAndCounted(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("other", "/shop/other", "unix:path:/usr/bin/other"), entry("mistyped", "/shop/mine", self(t), "unix:uid:4242")}
	})
	var refused error
	r.await("a refusal", func() bool {
		_, refused = r.fetchOnce()
		return status.Code(refused) == codes.PermissionDenied
	})
	for _, want := range []string{"workload.sock: process refused", self(t), "no entry and no binding", "nearest=entry/mistyped", "lacks=[unix:uid:4242]", fmt.Sprintf("pid=%d", os.Getpid())} {
		if log := r.log.String(); !strings.Contains(log, want) {
			t.Errorf("the log lacks %q: %s", want, log)
		}
	}
	if told := status.Convert(refused).Message(); told != sds.ErrNoIdentity.Error() {
		t.Errorf("the process is told %q", told)
	}
	if n := r.metric(`signet_agent_peers_refused_total{socket="workload"}`); n == "" || n == "0" {
		t.Errorf("%q are counted", n)
	}
}
