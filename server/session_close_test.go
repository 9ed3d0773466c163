package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"

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
		r := newSessions(slog.New(slog.DiscardHandler))
		r.gone = func(*session) {}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), callerKey{}, hostile("x")))
		stream := &slowStream{ctx: ctx, noticed: make(chan struct{})}
		cancel()
		if err := r.serve(stream); !errors.Is(err, context.Canceled) {
			t.Fatalf("the session ended with %v", err)
		}
		closed := false
		go func() {
			r.close()
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
	s := &session{down: make(chan *api.SessionDown, 4)}
	for range 3 {
		s.tellUnserved(nil)
	}
	if n := len(s.down); n != 1 {
		t.Errorf("told %d times", n)
	}
}
