package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/api"
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
		r.t.Fatal(err)
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

func TestSVIDsRotateGoOnInAnOutageAndResumeByThemselves(t *testing.T) {
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
