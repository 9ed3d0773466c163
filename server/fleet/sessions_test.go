package fleet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/shared"
)

// slowStream is an agent's stream whose reader does not notice at once that it ended.
type slowStream struct {
	grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]

	ctx     context.Context //nolint:containedctx // grpc.ServerStream's own contract
	noticed chan struct{}
}

func (s *slowStream) Context() context.Context { return s.ctx }

func (s *slowStream) Recv() (*api.SessionUp, error) {
	<-s.noticed
	return nil, io.EOF
}

func TestTheServerWaitsForTheReadersOfItsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sessionsAt(inMemory(), "one", &reports{})
		ctx, cancel := context.WithCancel(t.Context())
		stream := &slowStream{ctx: ctx, noticed: make(chan struct{})}
		cancel()
		if err := r.Serve(hostile("x"), stream); !errors.Is(err, context.Canceled) {
			t.Fatalf("the session ended with %v", err)
		}
		closed := false
		go func() {
			r.Close()
			closed = true
		}()
		synctest.Wait()
		if closed {
			t.Error("a reader runs, and nobody waits for it")
		}
		close(stream.noticed)
		synctest.Wait()
		if !closed {
			t.Error("the reader has ended, and close waits on")
		}
	})
}

// badStream is one of which reading ends in an error at once.
type badStream struct {
	slowStream

	err error
}

func (s *badStream) Recv() (*api.SessionUp, error) { return nil, s.err }

// An agent whose report is too large would else see its session end without a reason, and
// make the same one again, for ever.
func TestASessionThatEndsByWhatItsAgentSentIsToldToBoth(t *testing.T) {
	for err, told := range map[error]bool{
		status.Error(codes.ResourceExhausted, "received message larger than max"): true,
		status.Error(codes.Internal, "failed to unmarshal the received message"):  true,
		status.Error(codes.Canceled, "context canceled"):                          false,
		io.EOF: false,
	} {
		var log bytes.Buffer
		r := NewSessions(SessionsConfig{Server: "one", Shared: inMemory(), Reports: &reports{}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		got := r.Serve(hostile("x"), &badStream{slowStream{ctx: t.Context()}, err})
		r.Close()
		if told != errors.Is(got, err) || told != strings.Contains(log.String(), "by what it sent") {
			t.Errorf("%v: the agent is told %v, and the operator\n%s", err, got, log.String())
		}
	}
}

// Whoever follows decisions asks again with another filter, while the question before may not be
// sent yet: what changes while it is encoded is no message, and ended the session.
func TestAQuestionThatWaitsForASlowAgentStaysAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sessionsAt(inMemory(), "one", &reports{})
		slow := streamOf(r, "x", "slow")
		slow.down = make(chan *api.SessionDown, 1)
		r.enter(slow)
		defer r.leave(slow)
		f := &api.DecisionFilter{Source: "shop/web", Limit: 7}
		if _, silent := r.Decisions(t.Context(), f); len(silent) != 1 {
			t.Fatalf("silent are %v", silent)
		}
		f.Limit, f.Source = 500, "shop/another"
		if asked := (<-slow.down).GetDecisions().GetFilter(); asked.GetLimit() != 7 || asked.GetSource() != "shop/web" {
			t.Errorf("it is asked for %v", asked)
		}
	})
}

func TestNothingIsKeptOfTheConnectionOfAnAgentThatDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sessionsAt(inMemory(), "one", &reports{})
		gone, back, next := streamOf(r, "x", "gone"), streamOf(r, "y", "back"), streamOf(r, "y", "next")
		for _, s := range []*stream{gone, back} {
			r.enter(s)
			r.leave(s)
		}
		time.Sleep(placeKept / 2)
		r.enter(next)
		r.leave(next)
		time.Sleep(placeKept * 3 / 4)
		synctest.Wait()
		if len(r.conns) != 1 || r.conns["y"].session != "next" {
			t.Errorf("kept after the place of x is gone: %v", r.conns)
		}
		time.Sleep(placeKept)
		synctest.Wait()
		if len(r.conns) != 0 {
			t.Errorf("kept: %v", r.conns)
		}
	})
}

// A9-60: what it had reported was kept for ever, since its session's end found nothing to end.
func TestNothingIsKeptOfAnAgentThatIsDroppedWhileItHasASession(t *testing.T) {
	known := inMemory()
	cfg := configOf(known)
	e := NewEndpoints(cfg)
	var left []string
	r := sessionsAt(known, "one", &reports{
		report: func(p Peer, m *api.Report) { e.Report(p, m) },
		left:   func(agent string) { left = append(left, agent); e.Left(agent) },
	})
	s := streamOf(r, "x", "open")
	s.down = make(chan *api.SessionDown, 4)
	r.enter(s)
	up := reportOf(1, true)
	up.Proxies[0].Address = "192.0.2.7" // nobody's
	if err := r.handle(t.Context(), s, &api.SessionUp{Message: &api.SessionUp_Report{Report: up}}); err != nil || len(e.Refused()) != 1 {
		t.Fatalf("%v, refused: %v", err, e.Refused())
	}
	r.Drop("x")
	if now, _ := known.Get(); !now.runs.Empty() || len(e.Refused()) > 0 {
		t.Errorf("kept: %v, refused: %v", now.run("x"), e.Refused())
	}
	r.leave(s)
	if now, _ := known.Get(); !now.runs.Empty() || !slices.Equal(left, []string{"x"}) {
		t.Errorf("after its session: %v, told that these left: %v", now.run("x"), left)
	}
}

// An earlier stream may have told another thing, and ended before it was mended.
func TestEachStreamTellsItsAgentOnceWhichProxiesAreNotServed(t *testing.T) {
	s := &stream{down: make(chan *api.SessionDown, 4)}
	for range 3 {
		s.tellUnserved(nil)
	}
	if n := len(s.down); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// reports are what sessions hand on.
type reports struct {
	report func(Peer, *api.Report)
	left   func(agent string)
}

func (r *reports) Report(p Peer, m *api.Report) map[string]string {
	if r.report != nil {
		r.report(p, m)
	}
	return nil
}

func (r *reports) Left(agent string) {
	if r.left != nil {
		r.left(agent)
	}
}

// sessionsAt are those of one of the servers that know this.
func sessionsAt(known shared.Value[*Known], server string, to Reports) *Sessions {
	return NewSessions(SessionsConfig{Server: server, Shared: known, Reports: to, Log: slog.New(slog.DiscardHandler)})
}

// streamOf is one of an agent that has not entered.
func streamOf(r *Sessions, agent, id string) *stream {
	p := hostile(agent)
	p.session = id
	return &stream{Session: &Session{id: id, server: r.cfg.Server, peer: p}, end: func(error) {}}
}

// Else its endpoints would go with the grace of the session before.
func TestAnAgentThatComesBackKeepsItsEndpointsHoweverLateItsLastSessionIsSeenToEnd(t *testing.T) {
	known := inMemory()
	e := NewEndpoints(configOf(known))
	leaving, back := make(chan struct{}), make(chan struct{})
	r := sessionsAt(known, "one", &late{e, leaving, back})
	up := &api.SessionUp{Message: &api.SessionUp_Report{Report: reportOf(1, true)}}
	before, next := streamOf(r, "x", "before"), streamOf(r, "x", "next")
	r.enter(before)
	if err := r.handle(t.Context(), before, up); err != nil {
		t.Fatal(err)
	}
	var left sync.WaitGroup
	left.Go(func() { r.leave(before) })
	<-leaving
	r.enter(next)
	if err := r.handle(t.Context(), next, up); err != nil {
		t.Fatal(err)
	}
	close(back)
	left.Wait()
	if n := e.Snapshot().OfAgent("x"); len(n) != 1 || !n[0].Gone.IsZero() {
		t.Errorf("registered: %+v", n)
	}
	r.leave(next)
	if n := e.Snapshot().OfAgent("x"); len(n) != 1 || n[0].Gone.IsZero() {
		t.Errorf("after it has left: %+v", n)
	}
}

// late are endpoints that are told late that an agent left.
type late struct {
	*Endpoints
	leaving, back chan struct{}
}

func (l *late) Left(agent string) {
	select {
	case <-l.back:
	default:
		close(l.leaving)
		<-l.back
	}
	l.Endpoints.Left(agent)
}
