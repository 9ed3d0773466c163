package fleet

import (
	"context"
	"crypto/rand"
	"net/netip"
	"time"

	"signet.example/api"
	"signet.example/internal/underway"
	"signet.example/server/fault"
)

const (
	// probeWait is how long the agent that is connected may be silent when it is
	// probed. A process that ended is known by its closed connection; this is for hosts
	// that lost their power or their network.
	probeWait = 3 * time.Second
	// probeMargin is how much longer a newcomer waits for a verdict: for a probe that
	// is not sent yet, or an agent that was heard from meanwhile.
	probeMargin = time.Second
	// placeKept is for how long an instance keeps its place after its session has ended
	// and not from its side: we close connections, for their age and where they hold too
	// much, and the agent opens the next one.
	placeKept = 5 * time.Second
)

// errUnsure is returned to a newcomer while the other instance's stream stands and
// it is not known whether that one is alive, or while it has not had the time to come back.
var errUnsure = fault.New(fault.Unavailable, "another process with this host key has a connection, and it is not known yet whether it is alive: try again")

// probe asks one session's agent for a sign of life. There is one at a time for each
// session, which all newcomers share: however many they are, the agent has one
// message to answer.
type probe struct {
	nonce    string
	newcomer netip.Addr    // the first who asked
	answered chan struct{} // closed by its answer
	sent     time.Time     // zero until it is; guarded by stream.mu
}

func (p *probe) message() *api.SessionDown {
	return &api.SessionDown{Message: &api.SessionDown_Probe{Probe: &api.Probe{Nonce: p.nonce, Remote: p.newcomer.String()}}}
}

// inquiry is what one server asks of another about a session that is there: whether its
// agent is alive. Immutable: the answer makes another one.
type inquiry struct {
	id             string
	newcomer       netip.Addr
	decided, alive bool
}

// Answers reports whether an agent's instance has a session that is alive, at whichever
// server. It has none that is alive if the agent ended it, if it did not come back within
// placeKept after we did, or if nothing at all came on it for probeWait after a probe was
// sent. What is not known by then is an error.
func (r *Sessions) Answers(ctx context.Context, agent, instance string, newcomer netip.Addr) (*Session, bool, error) {
	begun, asked := time.Now(), map[string]bool{}
	for {
		known, wake := r.cfg.Shared.Get()
		run := known.run(agent)
		s := run.session
		switch {
		case s != nil && s.peer.Instance == instance:
		case r.kept(agent, instance, run.place):
			return nil, false, errUnsure
		default:
			return nil, false, nil
		}
		left := probeWait + probeMargin - time.Since(begun)
		next := left
		var answered <-chan struct{}
		if here := r.of(agent); here != nil && here.id == s.id {
			p := here.probed(newcomer)
			silent, heard := here.silence(p)
			if heard && silent >= probeWait {
				return s, false, nil
			}
			next = min(next, probeWait-silent)
			answered, wake = p.answered, here.gone // it may have come back: a connection lives for a limited time
		} else if s.server != r.cfg.Server {
			q := r.inquire(s, newcomer, asked)
			if q.decided {
				return s, q.alive, nil
			}
			asked[q.id] = true
		}
		if left <= 0 {
			return nil, false, errUnsure
		}
		timer := time.NewTimer(next)
		select {
		case <-answered:
			timer.Stop()
			return s, true, nil
		case <-ctx.Done():
			timer.Stop()
			return nil, false, context.Cause(ctx)
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// inquire is the newest inquiry about a session that is another server's, of which there
// is one at a time. One that was decided counts for those who waited for it.
func (r *Sessions) inquire(s *Session, newcomer netip.Addr, asked map[string]bool) inquiry {
	agent := s.peer.Agent.ID
	if q := r.known().run(agent).inquiry; q != nil && (!q.decided || asked[q.id]) {
		return *q
	}
	ours := &inquiry{id: rand.Text(), newcomer: newcomer}
	var q *inquiry
	r.cfg.Shared.Update(func(now *Known) *Known {
		if q = now.run(agent).inquiry; now.sessionOf(agent) != s.id || q != nil && !q.decided {
			return now
		}
		q = ours
		return now.withRun(agent, func(run *Run) { run.inquiry = ours })
	})
	if q == nil { // the session has ended meanwhile
		q = ours
	}
	return *q
}

// takes reports whether nobody has looked into this inquiry.
func (s *stream) takes(q *inquiry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.inquiry != q.id
	s.inquiry = q.id
	return first
}

// decide answers another server's inquiry about a session that is here. Where nothing is
// known, whoever asks next asks anew.
func (r *Sessions) decide(ctx context.Context, s *stream, q *inquiry) {
	agent := s.peer.Agent.ID
	_, alive, err := r.Answers(ctx, agent, s.peer.Instance, q.newcomer)
	r.cfg.Shared.Update(func(now *Known) *Known {
		if is := now.run(agent).inquiry; is == nil || is.id != q.id {
			return now
		}
		return now.withRun(agent, func(run *Run) {
			if run.inquiry = nil; err == nil {
				run.inquiry = &inquiry{id: q.id, newcomer: q.newcomer, decided: true, alive: alive}
			}
		})
	})
}

// place is that of an instance whose session has ended, and not from its side. Immutable.
type place struct {
	session, instance string
	since             time.Time
}

// kept reports whether an instance's place is kept, and else lets go of it. Whether its
// process has ended, which may be seen a moment after the stream has ended, is known to
// the server that had the session.
func (r *Sessions) kept(agent, instance string, p *place) bool {
	if p == nil {
		return false
	}
	r.mu.Lock()
	last := r.conns[agent]
	r.mu.Unlock()
	if time.Since(p.since) < placeKept && (last.session != p.session || last.conn == nil || !last.conn.Left()) {
		return p.instance == instance
	}
	r.cfg.Shared.Update(func(now *Known) *Known {
		if now.run(agent).place != p {
			return now
		}
		return now.withRun(agent, func(run *Run) { run.place = nil })
	})
	return false
}

// lastConn is the connection of the last session that an agent had here.
type lastConn struct {
	session string
	conn    *underway.Conn // nil where it is of no room
}

// probed returns the session's outstanding probe, a new one if there is none.
func (s *stream) probed(newcomer netip.Addr) *probe {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == nil {
		s.probe = &probe{nonce: rand.Text(), newcomer: newcomer, answered: make(chan struct{})}
		s.ask <- s.probe // it has room: the last one was taken out before it was answered
	}
	return s.probe
}

// sent is called when a probe is on its way.
func (s *stream) sent(p *probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.sent = time.Now()
}

// silence is for how long nothing came from the agent since a probe was sent. It is
// not known while the probe waits to be sent, or a message to be taken.
func (s *stream) silence(p *probe) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.sent.IsZero() || s.idle.IsZero() {
		return 0, false
	}
	if s.idle.After(p.sent) {
		return time.Since(s.idle), true
	}
	return time.Since(p.sent), true
}

// waits notes whether the reader waits for the agent, or has a message in hand.
func (s *stream) waits(idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = time.Time{}
	if idle {
		s.idle = time.Now()
	}
}

// alive reports whether a message answers the outstanding probe, which then is none
// any more. No limit holds it up: there are no more of them than probes.
func (s *stream) alive(m *api.SessionUp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == nil || m.GetAlive() != s.probe.nonce {
		return false
	}
	close(s.probe.answered)
	s.probe = nil
	return true
}
