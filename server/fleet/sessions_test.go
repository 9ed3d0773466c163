package fleet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
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
		r := NewSessions(&reports{}, slog.New(slog.DiscardHandler))
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

// An earlier stream may have told another thing, and ended before it was mended.
func TestEachStreamTellsItsAgentOnceWhichProxiesAreNotServed(t *testing.T) {
	s := &Session{down: make(chan *api.SessionDown, 4)}
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

// Else its endpoints would go with the grace of the session before.
func TestAnAgentThatComesBackReportsAfterItHasLeft(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	leaving := make(chan struct{})
	r := NewSessions(&reports{
		report: func(Peer, *api.Report) { note("report") },
		left: func(string) {
			close(leaving)
			time.Sleep(50 * time.Millisecond)
			note("left")
		},
	}, slog.New(slog.DiscardHandler))
	before, next := &Session{peer: hostile("x"), end: func(error) {}}, &Session{peer: hostile("x"), end: func(error) {}}
	r.enter(before)
	var left sync.WaitGroup
	left.Go(func() { r.leave(before) })
	<-leaving
	r.enter(next)
	if err := r.handle(next, &api.SessionUp{Message: &api.SessionUp_Report{Report: &api.Report{}}}); err != nil {
		t.Fatal(err)
	}
	left.Wait()
	if !slices.Equal(order, []string{"left", "report"}) {
		t.Errorf("%v", order)
	}
}
