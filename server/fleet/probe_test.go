package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/server/shared"
)

// probedStream is an agent's stream as the server sees it.
type probedStream struct {
	grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]

	ctx  context.Context //nolint:containedctx // grpc.ServerStream's own contract
	up   chan *api.SessionUp
	send func(*api.SessionDown) // in the session's goroutine
}

func (s *probedStream) Context() context.Context { return s.ctx }

func (s *probedStream) Send(m *api.SessionDown) error {
	s.send(m)
	return nil
}

func (s *probedStream) Recv() (*api.SessionUp, error) {
	select {
	case m, ok := <-s.up:
		if ok {
			return m, nil
		}
	case <-s.ctx.Done():
	}
	return nil, io.EOF
}

// probedAgent is the session of agent x. The returned function ends it.
func probedAgent(t *testing.T, r *Sessions, send func(*probedStream, *api.SessionDown)) (stream *probedStream, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream = &probedStream{ctx: ctx, up: make(chan *api.SessionUp, 4096)}
	stream.send = func(m *api.SessionDown) { send(stream, m) }
	var served sync.WaitGroup
	served.Go(func() { _ = r.Serve(hostile("x"), stream) }) // it ends with ctx
	synctest.Wait()
	return stream, func() {
		cancel()
		served.Wait()
	}
}

func probedSessions() *Sessions {
	return sessionsAt(inMemory(), "one", &reports{})
}

type verdict struct {
	alive bool
	err   error
	took  time.Duration
}

// newcomersAsk has many newcomers ask for the place of agent x at once.
func newcomersAsk(t *testing.T, r *Sessions, n int) []verdict {
	t.Helper()
	list := make([]verdict, n)
	var all sync.WaitGroup
	for i := range list {
		all.Go(func() {
			begun := time.Now()
			_, alive, err := r.Answers(t.Context(), "x", "", netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
			list[i] = verdict{alive, err, time.Since(begun)}
		})
	}
	all.Wait()
	return list
}

func alive(m *api.SessionDown) *api.SessionUp {
	return &api.SessionUp{Message: &api.SessionUp_Alive{Alive: m.GetProbe().GetNonce()}}
}

// A thief may come as often as he likes, from as many addresses as he has.
func TestAllNewcomersShareOneProbeAndItsAnswerWaitsForNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		probes := 0
		stream, end := probedAgent(t, r, func(s *probedStream, m *api.SessionDown) {
			if m.GetProbe() != nil {
				probes++
				time.AfterFunc(time.Millisecond, func() { s.up <- alive(m) })
			}
		})
		defer end()
		for range reportBurst { // the limit of its reports is used up
			stream.up <- &api.SessionUp{Message: &api.SessionUp_Report{Report: &api.Report{}}}
		}
		synctest.Wait()
		for round := range 50 {
			for _, v := range newcomersAsk(t, r, 100) {
				if !v.alive || v.err != nil || v.took > time.Second {
					t.Fatalf("round %d: %+v", round, v)
				}
			}
		}
		if probes > 50 {
			t.Errorf("%d probes for 50 rounds", probes)
		}
	})
}

func TestAnAgentThatAnswersLateKeepsItsPlaceAgainstAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		probes := 0
		_, end := probedAgent(t, r, func(s *probedStream, m *api.SessionDown) {
			if m.GetProbe() != nil {
				probes++
				time.AfterFunc(probeWait-time.Millisecond, func() { s.up <- alive(m) })
			}
		})
		defer end()
		for _, v := range newcomersAsk(t, r, 1000) {
			if !v.alive || v.err != nil {
				t.Fatalf("%+v", v)
			}
		}
		if probes != 1 {
			t.Errorf("%d probes", probes)
		}
	})
}

func TestASilentAgentIsDeadToAllNewcomersWithinTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		_, end := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		defer end()
		for _, v := range newcomersAsk(t, r, 100) {
			if v.alive || v.err != nil || v.took > probeWait {
				t.Fatalf("%+v", v)
			}
		}
	})
}

// What it sent before it died is heard late; then it is dead.
func TestAnAgentWhoseMessagesTheServerHoldsBackIsNotTakenForDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		stream, end := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		defer end()
		for range reportBurst + 10*reportPerSecond {
			stream.up <- &api.SessionUp{Message: &api.SessionUp_Report{Report: &api.Report{}}}
		}
		for _, v := range newcomersAsk(t, r, 10) {
			if v.alive || !errors.Is(v.err, errUnsure) || v.took > probeWait+probeMargin {
				t.Fatalf("%+v", v)
			}
		}
		time.Sleep(10 * time.Second)
		if _, alive, err := r.Answers(t.Context(), "x", "", netip.Addr{}); alive || err != nil {
			t.Errorf("alive %v, %v", alive, err)
		}
	})
}

func TestAFullQueueIsNoReasonToTakeAnAgentForDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		blocked := make(chan struct{})
		_, end := probedAgent(t, r, func(s *probedStream, m *api.SessionDown) {
			<-blocked
			if m.GetProbe() != nil {
				s.up <- alive(m)
			}
		})
		defer end()
		for i := range 2 * cap(r.of("x").down) {
			r.send(&api.SessionDown{Message: &api.SessionDown_Explain{Explain: fmt.Sprint(i)}})
			synctest.Wait()
		}
		for _, v := range newcomersAsk(t, r, 10) {
			if v.alive || !errors.Is(v.err, errUnsure) {
				t.Fatalf("%+v", v)
			}
		}
		close(blocked)
		if _, alive, err := r.Answers(t.Context(), "x", "", netip.Addr{}); !alive || err != nil {
			t.Errorf("alive %v, %v", alive, err)
		}
	})
}

// Connections live for a limited time, and an agent opens the next one itself.
func TestAnAgentThatComesBackWhileItIsProbedKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		_, end := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		defer end()
		var verdicts []verdict
		var asked sync.WaitGroup
		asked.Go(func() { verdicts = newcomersAsk(t, r, 10) })
		time.Sleep(time.Second)
		_, end = probedAgent(t, r, func(s *probedStream, m *api.SessionDown) {
			if m.GetProbe() != nil {
				s.up <- alive(m)
			}
		})
		defer end()
		asked.Wait()
		for _, v := range verdicts {
			if !v.alive || v.err != nil || v.took != time.Second {
				t.Errorf("%+v", v)
			}
		}
	})
}

// nobodysStreams are not to be ended.
type nobodysStreams struct{ t *testing.T }

func (s nobodysStreams) Evict(string, string, error) { s.t.Error("somebody is evicted") }

// unsure does not know who is alive.
type unsure struct{}

func (unsure) Answers(context.Context, string, string, netip.Addr) (*Session, bool, error) {
	return nil, false, errUnsure
}

// tooEarly finds that a run has no session, or a silent one, right before it has a new one.
type tooEarly struct {
	known shared.Value[*Known]
	found *Session
}

func (e tooEarly) Answers(_ context.Context, agent, instance string, _ netip.Addr) (*Session, bool, error) {
	e.known.Update(func(now *Known) *Known {
		return now.withRun(agent, func(run *Run) { run.session = &Session{id: "new", peer: Peer{Instance: instance}} })
	})
	return e.found, false, nil
}

func TestARunThatComesBackWhileItIsFoundGoneKeepsItsPlace(t *testing.T) {
	for _, found := range []*Session{nil, {id: "silent"}} {
		known := probedSessions().cfg.Shared
		i := NewInstances(InstancesConfig{
			Shared: known, Sessions: tooEarly{known, found}, Streams: nobodysStreams{t},
			Tell: func(context.Context, string, Clash) {}, Clock: time.Now,
		})
		i.Joined("x", "first", netip.Addr{})
		if err := i.Admit(t.Context(), "x", "another", netip.Addr{}); !errors.Is(err, fault.Conflict) || i.run("x").instance != "first" {
			t.Errorf("after %+v: %v, served %q", found, err, i.run("x").instance)
		}
	}
}

func TestANewcomerThatLeavesOrOfWhomNothingIsKnownIsNoClash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probedSessions()
		_, end := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		defer end()
		i := NewInstances(InstancesConfig{
			Shared: r.cfg.Shared, Sessions: r, Streams: nobodysStreams{t},
			Tell: func(context.Context, string, Clash) { t.Error("a clash is told") }, Clock: time.Now,
		})
		i.Joined("x", "", netip.Addr{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := i.Admit(ctx, "x", "another", netip.Addr{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that left: %v", err)
		}
		i.cfg.Sessions = unsure{}
		if err := i.Admit(t.Context(), "x", "another", netip.Addr{}); !errors.Is(err, fault.Unavailable) {
			t.Errorf("nothing is known: %v", err)
		}
		if len(i.Recent()) != 0 || i.run("x").instance != "" {
			t.Errorf("clashes %v, served %+v", i.Recent(), i.run("x"))
		}
	})
}
