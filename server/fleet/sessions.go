package fleet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/internal/underway"
	"signet.example/internal/watched"
	"signet.example/server/fault"
	"signet.example/store"
)

// Peer is an agent that was let in: as it joined, where its connection comes from, and
// which run of it this is. Immutable.
type Peer struct {
	ID       spiffeid.ID
	Agent    store.Agent
	Remote   netip.Addr
	Instance string
}

// Reports takes what agents report. Calls for one agent never overlap, and what Left
// says is final: no Report of the session before comes after it.
type Reports interface {
	// Report takes the latest report of an agent, and returns why no caller is sent to
	// a proxy, by its name.
	Report(p Peer, r *api.Report) (unserved map[string]string)
	// Left is called when an agent's last session has ended, and not when the server stops.
	Left(agent string)
}

// Session is one connected agent.
type Session struct {
	peer  Peer
	since time.Time
	down  chan *api.SessionDown
	ask   chan *probe // has room for the one that is outstanding
	end   context.CancelCauseFunc
	gone  chan struct{}  // closed when its stream has ended
	conn  *underway.Conn // that it is on; nil where that is of no room

	byAgent atomic.Bool // the agent ended the stream

	mu     sync.Mutex  // guards the following three
	report *api.Report // the latest; replaced whole, never changed
	probe  *probe      // the one that is outstanding, nil if none is
	idle   time.Time   // since when the reader waits for a message, zero while it has one

	taking sync.Mutex // held while a report is taken
	over   bool       // nothing is taken any more; guarded by taking
	// unserved is what the agent was told last, if it was told; guarded by taking.
	unserved     map[string]string
	unservedSent bool
}

// Peer is who is connected.
func (s *Session) Peer() Peer { return s.peer }

// Since is when the session began.
func (s *Session) Since() time.Time { return s.since }

// tellUnserved sends the agent which of its proxies no caller is sent to, where that
// has changed, and once on each stream: an earlier one may have sent another
// thing. The caller holds taking.
func (s *Session) tellUnserved(reasons map[string]string) {
	if s.unservedSent && maps.Equal(reasons, s.unserved) {
		return
	}
	select {
	case s.down <- &api.SessionDown{Message: &api.SessionDown_Unserved{Unserved: &api.Unserved{Reasons: reasons}}}:
		s.unserved, s.unservedSent = reasons, true
	default: // it has not read for long: with its next report
	}
}

// retire ends the taking of reports: one that is still on its way must not come
// after what is done when a session ends or is replaced.
func (s *Session) retire() {
	s.taking.Lock()
	defer s.taking.Unlock()
	s.over = true
}

// take hands a report on, unless the session is over.
func (s *Session) take(r *api.Report, to Reports) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.over {
		return
	}
	s.mu.Lock()
	s.report = r
	s.mu.Unlock()
	s.tellUnserved(to.Report(s.peer, r))
}

// Latest is what the agent reported last, nil if it has not so far.
func (s *Session) Latest() *api.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// LastSession is what stays of an agent's last session, zero if there was none.
type LastSession struct {
	Report *api.Report // its latest, nil if it made none
	At     time.Time
}

// Sessions are the connected agents, one session each: the newest wins, since an
// agent that reconnects may do so before the old connection is seen to be dead.
//
// Session.taking is held while Reports takes a report, and mu while it is told that an
// agent left; mu is taken before Session.mu, and not together with Session.taking.
type Sessions struct {
	log      *slog.Logger
	reports  Reports
	stopping atomic.Bool // it is we who go, not the agents

	changes watched.Value[uint64] // reports, connects and disconnects so far, for those who wait for one

	mu      sync.Mutex             // guards the following, and every question
	by      map[string]*Session    // by agent id
	left    map[string]LastSession // of agents that went away
	places  map[string]place       // of instances whose session has ended
	waiting map[string][]*question // by decision id

	receiving sync.WaitGroup // the readers of sessions, which outlive their handlers a little
}

// NewSessions has no sessions yet.
func NewSessions(reports Reports, log *slog.Logger) *Sessions {
	return &Sessions{
		log: log, reports: reports, by: map[string]*Session{}, left: map[string]LastSession{}, places: map[string]place{},
		waiting: map[string][]*question{},
	}
}

// Stop makes the server's stopping the reason why sessions end from now on.
func (r *Sessions) Stop() { r.stopping.Store(true) }

// Close waits for the readers of all sessions. No handler may be running any more.
func (r *Sessions) Close() { r.receiving.Wait() }

// Serve runs one session of a peer until it leaves or is replaced.
func (r *Sessions) Serve(p Peer, stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	s := &Session{
		peer: p, since: time.Now(), down: make(chan *api.SessionDown, 64), ask: make(chan *probe, 1), end: end, gone: make(chan struct{}),
		conn: underway.Of(stream.Context()),
	}
	defer close(s.gone)
	r.enter(s)
	defer r.leave(s)
	up := make(chan error, 1)
	// It ends when the handler has returned, as every Recv does, and not before: close waits for it.
	r.receiving.Go(func() { up <- r.receive(ctx, stream, s) })
	for {
		select {
		case m := <-s.down:
			if err := stream.Send(m); err != nil {
				return err
			}
		case p := <-s.ask:
			if err := stream.Send(p.message()); err != nil {
				return err
			}
			s.sent(p)
		case err := <-up:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *Sessions) receive(ctx context.Context, stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown], s *Session) error {
	limit := rate.NewLimiter(reportPerSecond, reportBurst)
	for {
		s.waits(true)
		m, err := stream.Recv()
		s.waits(false)
		if err != nil {
			s.byAgent.Store(errors.Is(err, io.EOF))
			return nil //nolint:nilerr // the agent left: nothing to tell it
		}
		if s.alive(m) {
			continue
		}
		if err := limit.Wait(ctx); err != nil { // slows a talkative agent down
			return err
		}
		if err := r.handle(s, m); err != nil {
			return err
		}
	}
}

func (r *Sessions) handle(s *Session, m *api.SessionUp) error {
	switch m := m.GetMessage().(type) {
	case *api.SessionUp_Report:
		if err := checkReport(m.Report); err != nil {
			return err
		}
		s.take(m.Report, r.reports)
		r.announce()
	case *api.SessionUp_Explain:
		r.answer(s, m.Explain)
	case *api.SessionUp_Alive: // to a probe that is not outstanding
	}
	return nil
}

func (r *Sessions) enter(s *Session) {
	id := s.peer.Agent.ID
	r.mu.Lock()
	old := r.by[id]
	r.by[id] = s
	delete(r.places, id)
	r.mu.Unlock()
	if old != nil {
		old.retire()
		old.end(fault.New(fault.Unavailable, "replaced by a newer session of this agent"))
	}
	r.log.Info("agent connected", slog.String("agent", id), slog.String("remote", s.peer.Remote.String()))
}

func (r *Sessions) leave(s *Session) {
	s.retire()
	id := s.peer.Agent.ID
	r.mu.Lock()
	last := r.by[id] == s
	if last {
		delete(r.by, id)
		now := time.Now()
		r.left[id] = LastSession{s.Latest(), now}
		r.places[id] = place{s.peer.Instance, now, s.conn, s.byAgent.Load()}
		if !r.stopping.Load() {
			r.reports.Left(id) // under mu: the agent's next session enters, and reports, after it
		}
	}
	r.mu.Unlock()
	if last {
		r.log.Info("agent disconnected", slog.String("agent", id))
		r.announce()
	}
}

// announce wakes those who watch reports.
func (r *Sessions) announce() {
	r.changes.Update(func(n uint64) uint64 { return n + 1 })
}

// Wait is closed at the next report, connect or disconnect.
func (r *Sessions) Wait() <-chan struct{} {
	_, changed := r.changes.Get()
	return changed
}

// Connected lists the sessions by agent id.
func (r *Sessions) Connected() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Session, 0, len(r.by))
	for _, s := range r.by {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *Session) int { return strings.Compare(a.peer.Agent.ID, b.peer.Agent.ID) })
	return list
}

// Loaded reports whether every connected agent has loaded a policy revision.
func (r *Sessions) Loaded(revision string) bool {
	for _, s := range r.Connected() {
		if s.Latest().GetPolicyRevision() != revision {
			return false
		}
	}
	return true
}

// Of returns an agent's session, nil if it is not connected, and what stayed of the last that ended.
func (r *Sessions) Of(id string) (*Session, LastSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[id], r.left[id]
}

// Drop lets go of what stayed of an agent that was deleted.
func (r *Sessions) Drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.left, id)
	delete(r.places, id)
}
