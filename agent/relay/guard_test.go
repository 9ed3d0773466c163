package relay

import (
	"context"
	"errors"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent/resources"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/internal/unixsock"
	"signet.example/proxy"
)

// sentStream counts what passes.
type sentStream struct {
	grpc.ServerStream
	sent int
}

func (s *sentStream) SendMsg(any) error {
	s.sent++
	return nil
}

// Answers carry keys, so each is for a peer that is bound now, by the binding that
// its stream was opened by. That the stream is also ended comes later.
func TestAnAnswerPassesOnlyToAPeerThatIsStillBound(t *testing.T) {
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	peer, err := new(attestation.Attestor).Peer(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	has, err := peer.Selectors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	web := func(name, selector string) *api.Entry {
		return &api.Entry{
			Name: name, SpiffeId: "spiffe://test.example/shop/web", Selectors: []string{selector},
			VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"},
		}
	}
	mine := has[0].String()
	for name, c := range map[string]struct {
		now   *resources.Snapshot
		bound bool
		want  codes.Code
	}{
		"as it was":         {resources.New(svidstest.Domain, resourcestest.Set(t, web("a", mine)), nil, nil, resources.OfProcesses), true, codes.OK},
		"another user":      {resources.New(svidstest.Domain, resourcestest.Set(t, web("a", "unix:uid:4242")), nil, nil, resources.OfProcesses), true, codes.PermissionDenied},
		"another binding":   {resources.New(svidstest.Domain, resourcestest.Set(t, web("b", mine)), nil, nil, resources.OfProcesses), true, codes.PermissionDenied},
		"no binding":        {resources.New(svidstest.Domain, resourcestest.Set(t), nil, nil, resources.OfProcesses), true, codes.PermissionDenied},
		"never bound":       {resources.New(svidstest.Domain, resourcestest.Set(t, web("a", mine)), nil, nil, resources.OfProcesses), false, codes.Internal},
		"no state any more": {nil, true, codes.Internal},
	} {
		r := aRelay(nil, &decided{})
		r.config.State.Set(c.now)
		out := &sentStream{}
		g := &guard{ServerStream: out, peer: peer, relay: r}
		g.ctx, g.cancel = context.WithCancelCause(t.Context())
		if c.bound {
			g.bound, g.as, g.ref = true, svids.Name{Entry: "a", ID: spiffeid.RequireFromString("spiffe://test.example/shop/web")}, proxy.Node("shop", "web")
		}
		err := g.SendMsg(nil)
		g.cancel(nil)
		if status.Code(err) != c.want || (out.sent == 1) != (c.want == codes.OK) {
			t.Errorf("%s: %d sent, %v", name, out.sent, err)
		}
	}
}

// An agent that is out of files has not seen who asks: it gives nothing, and does not
// say that the process is not bound.
func TestALookThatFailedIsNotABindingThatIsNotThere(t *testing.T) {
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	peer, err := new(attestation.Attestor).Peer(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	r := aRelay(nil, &decided{})
	r.config.State.Set(resources.New(svidstest.Domain, resourcestest.Set(t), nil, nil, resources.OfProcesses))
	out := &sentStream{}
	g := &guard{ServerStream: out, peer: peer, relay: r, bound: true}
	g.ctx, g.cancel = context.WithCancelCause(t.Context())
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil { // fewer than are open
		t.Fatal(err)
	}
	err = g.SendMsg(nil)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if status.Code(err) != codes.Unavailable || out.sent != 0 || !errors.Is(context.Cause(g.ctx), errUnseen) {
		t.Errorf("%v, %d sent; the stream ends for %v", err, out.sent, context.Cause(g.ctx))
	}
}
