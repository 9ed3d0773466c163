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
	sent     time.Time     // zero until it is; guarded by Session.mu
}

func (p *probe) message() *api.SessionDown {
	return &api.SessionDown{Message: &api.SessionDown_Probe{Probe: &api.Probe{Nonce: p.nonce, Remote: p.newcomer.String()}}}
}

// Answers reports whether an agent's instance has a session that is alive. It has
// none that is alive if the agent ended it, if it did not come back within placeKept after
// we did, or if nothing at all came on it for probeWait after a probe was sent. What is
// not known by then is an error.
func (r *Sessions) Answers(ctx context.Context, agent, instance string, newcomer netip.Addr) (netip.Addr, bool, error) {
	begun := time.Now()
	for {
		s, kept := r.session(agent, instance)
		switch {
		case kept:
			return netip.Addr{}, false, errUnsure
		case s == nil:
			return netip.Addr{}, false, nil
		}
		p := s.probed(newcomer)
		silent, known := s.silence(p)
		waited := time.Since(begun)
		switch {
		case known && silent >= probeWait:
			return netip.Addr{}, false, nil
		case waited >= probeWait+probeMargin:
			return netip.Addr{}, false, errUnsure
		}
		next := time.NewTimer(min(probeWait-silent, probeWait+probeMargin-waited))
		select {
		case <-p.answered:
			next.Stop()
			return s.peer.Remote, true, nil
		case <-s.gone: // it may have come back: a connection lives for a limited time
			next.Stop()
		case <-ctx.Done():
			next.Stop()
			return netip.Addr{}, false, context.Cause(ctx)
		case <-next.C:
		}
	}
}

// session returns the one that an agent's instance has, nil if it has none, and then
// whether its place is kept.
func (r *Sessions) session(agent, instance string) (s *Session, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.by[agent]; s != nil && s.peer.Instance == instance {
		return s, false
	}
	p, ok := r.places[agent]
	if ok && (p.left() || time.Since(p.since) >= placeKept) {
		delete(r.places, agent)
		ok = false
	}
	return nil, ok && p.instance == instance
}

// place is that of an instance whose session has ended.
type place struct {
	instance string
	since    time.Time
	conn     *underway.Conn // nil where it is of no room
	byAgent  bool           // it said that it has no more to send
}

// left reports whether the agent ended its session: by the stream, or since its connection
// was closed by its end, which may be seen a moment after the stream has ended.
func (p place) left() bool { return p.byAgent || p.conn != nil && p.conn.Left() }

// probed returns the session's outstanding probe, a new one if there is none.
func (s *Session) probed(newcomer netip.Addr) *probe {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == nil {
		s.probe = &probe{nonce: rand.Text(), newcomer: newcomer, answered: make(chan struct{})}
		s.ask <- s.probe // it has room: the last one was taken out before it was answered
	}
	return s.probe
}

// sent is called when a probe is on its way.
func (s *Session) sent(p *probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.sent = time.Now()
}

// silence is for how long nothing came from the agent since a probe was sent. It is
// not known while the probe waits to be sent, or a message to be taken.
func (s *Session) silence(p *probe) (time.Duration, bool) {
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
func (s *Session) waits(idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = time.Time{}
	if idle {
		s.idle = time.Now()
	}
}

// alive reports whether a message answers the outstanding probe, which then is none
// any more. No limit holds it up: there are no more of them than probes.
func (s *Session) alive(m *api.SessionUp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == nil || m.GetAlive() != s.probe.nonce {
		return false
	}
	close(s.probe.answered)
	s.probe = nil
	return true
}
