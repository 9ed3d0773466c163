package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/internal/paced"
	"signet.example/internal/underway"
	"signet.example/server/fault"
	"signet.example/server/questions"
	"signet.example/server/shared"
	"signet.example/store"
)

// Peer is an agent that was let in: as it joined, where its connection comes from, and
// which run of it this is. Immutable.
type Peer struct {
	ID    spiffeid.ID
	Agent store.Agent
	// Principal is by whose credentials it joined, where any number of agents can, "" of others.
	Principal string
	Remote    netip.Addr
	Instance  string

	session string // that it has by this connection; "" before it has one
}

// Reports takes what agents report. Calls for one session never overlap.
type Reports interface {
	// Report takes the latest report of an agent, unless that has another session by now,
	// and returns why no caller is sent to a proxy, by its name.
	Report(p Peer, r *api.Report) (unserved map[string]string)
	// Left is called when an agent's session has ended, and not when the server stops. It
	// changes nothing where the agent has another one by now.
	Left(agent string)
}

// Sessions are the connected agents, one session each: the newest wins, to whichever
// server, since an agent that reconnects may do so before the old connection is seen to be
// dead. Which sessions there are is Known; here are the streams of those that are
// connected to this server.
//
// stream.taking is held while Reports takes a report; mu is taken before stream.mu, and
// not together with stream.taking. No lock is held while what is shared is changed,
// except stream.taking.
type Sessions struct {
	cfg      SessionsConfig
	stopping atomic.Bool // it is we who go, not the agents

	mu    sync.Mutex          // guards the following
	here  map[string]*stream  // by agent id
	conns map[string]lastConn // by agent id
	large map[string]*large   // by principal

	questions questions.Questions
	changes   *paced.Each[string] // by agent: reports that change its endpoints

	receiving sync.WaitGroup // the readers of sessions, which outlive their handlers a little
}

// SessionsConfig is what Sessions have of the server. Every field is needed.
type SessionsConfig struct {
	Server  string // its name, which no other server of the store has
	Shared  shared.Value[*Known]
	Reports Reports
	// Wanted takes which keys of load balancers an agent needs. It must not wait.
	Wanted func(agent string, k *api.WantedKey)
	Log    *slog.Logger
}

// NewSessions has no sessions here. Those that a server of this name left behind have
// ended with it.
func NewSessions(cfg SessionsConfig) *Sessions {
	r := &Sessions{cfg: cfg, here: map[string]*stream{}, conns: map[string]lastConn{}, large: map[string]*large{}, changes: paced.New[string](changesPerSecond, changesBurst)}
	r.ended()
	return r
}

// ended has this server's sessions end, and the graces of their agents' endpoints begin.
func (r *Sessions) ended() {
	for s := range r.known().sessions() {
		if s.server != r.cfg.Server {
			continue
		}
		r.cfg.Shared.Update(func(now *Known) *Known {
			at := time.Now()
			if next, last := now.ended(s, at, false); last {
				return next.left(s.peer.Agent.ID, at)
			}
			return now
		})
	}
}

// known is what all servers know now.
func (r *Sessions) known() *Known {
	now, _ := r.cfg.Shared.Get()
	return now
}

// Stop makes the server's stopping the reason why sessions end from now on.
func (r *Sessions) Stop() { r.stopping.Store(true) }

// Close waits for the readers of all sessions here, and ends those. No handler may be
// running any more.
func (r *Sessions) Close() {
	r.receiving.Wait()
	r.ended()
}

// Run ends the sessions here whose agents have come to another server, and answers what
// other servers ask of the others, until ctx ends. It sleeps while nothing changes.
func (r *Sessions) Run(ctx context.Context) error {
	var looks sync.WaitGroup
	defer looks.Wait()
	follow(ctx, r.cfg.Shared, func(agent string, _ Run) {
		s := r.of(agent)
		if s == nil {
			return
		}
		now := r.known().run(agent) // that of before may lack this session
		if now.session == nil || now.session.id != s.id {
			s.end(errReplaced)
		} else if q := now.inquiry; q != nil && !q.decided && s.takes(q) {
			looks.Go(func() { r.decide(ctx, s, q) })
		}
	})
	return nil
}

// follow calls each for the agents of which something is known that was not, with what
// was, until ctx ends.
func follow(ctx context.Context, all shared.Value[*Known], each func(agent string, was Run)) {
	seen := &Known{}
	for {
		now, changed := all.Get()
		for agent := range now.runs.Differ(seen.runs) {
			each(string(agent), seen.run(string(agent)))
		}
		seen = now
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// Serve runs one session of a peer until it leaves or is replaced.
func (r *Sessions) Serve(p Peer, conn grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	ctx, end := context.WithCancelCause(conn.Context())
	defer end(nil)
	p.session = rand.Text()
	s := &stream{
		Session: &Session{id: p.session, server: r.cfg.Server, peer: p, since: time.Now()},
		down:    make(chan *api.SessionDown, 64), ask: make(chan *probe, 1), end: end, gone: make(chan struct{}),
		conn: underway.Of(conn.Context()),
	}
	defer close(s.gone)
	r.enter(s)
	defer r.leave(s)
	up := make(chan error, 1)
	// It ends when the handler has returned, as every Recv does, and not before: close waits for it.
	r.receiving.Go(func() { up <- r.receive(ctx, conn, s) })
	for {
		select {
		case m := <-s.down:
			if err := conn.Send(m); err != nil {
				return err
			}
		case p := <-s.ask:
			if err := conn.Send(p.message()); err != nil {
				return err
			}
			s.sent(p)
		case err := <-up:
			if err != nil && ctx.Err() == nil {
				r.cfg.Log.WarnContext(ctx, "an agent's session ends by what it sent, and is of no use until it sends something else", slog.String("agent", p.Agent.ID), slog.Any("err", err))
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *Sessions) receive(ctx context.Context, conn grpc.BidiStreamingServer[api.SessionUp, api.SessionDown], s *stream) error {
	limit := rate.NewLimiter(reportPerSecond, reportBurst)
	for {
		s.waits(true)
		m, err := conn.Recv()
		s.waits(false)
		if err != nil {
			s.byAgent.Store(errors.Is(err, io.EOF) && ctx.Err() == nil)
			if api.Untaken(err) { // too large, or no message of ours
				return err
			}
			return nil // the agent left: nothing to tell it
		}
		if s.alive(m) {
			continue
		}
		if err := limit.Wait(ctx); err != nil { // slows a talkative agent down
			return err
		}
		if err := r.handle(ctx, s, m); err != nil {
			return err
		}
	}
}

func (r *Sessions) handle(ctx context.Context, s *stream, m *api.SessionUp) error {
	switch m := m.GetMessage().(type) {
	case *api.SessionUp_Report:
		if err := checkReport(m.Report); err != nil {
			return err
		}
		if err := r.keeps(s.peer, m.Report); err != nil {
			return err
		}
		r.reported(ctx, s, m.Report)
	case *api.SessionUp_Explain:
		r.explained(s, m.Explain)
	case *api.SessionUp_Decisions:
		r.answer(s, m.Decisions.GetNonce(), m.Decisions.GetDecisions())
	case *api.SessionUp_WantedKey:
		r.cfg.Wanted(s.peer.Agent.ID, m.WantedKey)
	case *api.SessionUp_Alive: // to a probe that is not outstanding
	}
	return nil
}

// take hands a report on, unless the session is over.
func (r *Sessions) take(s *stream, m *api.Report) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.over {
		return
	}
	agent, current := s.peer.Agent.ID, false
	r.cfg.Shared.Update(func(now *Known) *Known {
		if current = now.sessionOf(agent) == s.id; !current {
			return now
		}
		return now.withRun(agent, func(run *Run) {
			next := *run.session
			next.report = m
			run.session, run.last.Report = &next, nil // nobody asks for it from now on, and only m is counted
		})
	})
	if current {
		s.tellUnserved(r.cfg.Reports.Report(s.peer, m))
	}
}

// Again takes the latest reports anew of those agents here that have proxies to which no
// caller is sent: what let nobody be sent there may have changed, and the agents do not know.
func (r *Sessions) Again() {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.here))
	r.mu.Unlock()
	for _, s := range all {
		r.again(s)
	}
}

func (r *Sessions) again(s *stream) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if now := r.known().run(s.peer.Agent.ID).session; !s.over && len(s.unserved) > 0 && now != nil && now.id == s.id {
		s.tellUnserved(r.cfg.Reports.Report(s.peer, now.report))
	}
}

// errReplaced ends a session whose agent has another one.
var errReplaced = fault.New(fault.Unavailable, "replaced by a newer session of this agent")

func (r *Sessions) enter(s *stream) {
	id := s.peer.Agent.ID
	r.cfg.Shared.Update(func(now *Known) *Known {
		return now.withRun(id, func(run *Run) { run.session, run.place, run.inquiry = s.Session, nil, nil })
	})
	r.mu.Lock()
	old := r.here[id]
	r.here[id] = s
	delete(r.conns, id)
	r.mu.Unlock()
	if old != nil {
		old.retire()
		old.end(errReplaced)
	}
	if r.known().sessionOf(id) != s.id { // and Run has looked before it was here
		s.end(errReplaced)
	}
	r.cfg.Log.Info("agent connected", slog.String("agent", id), slog.String("remote", s.peer.Remote.String()))
}

func (r *Sessions) leave(s *stream) {
	s.retire()
	id := s.peer.Agent.ID
	r.mu.Lock()
	last := r.here[id] == s
	if last {
		delete(r.here, id)
		r.conns[id] = lastConn{s.id, s.conn}
		time.AfterFunc(placeKept, func() { r.letGo(id, s.id) }) // nobody asks for it after that
	}
	r.mu.Unlock()
	if !r.stopping.Load() { // else Close ends it
		r.cfg.Shared.Update(func(now *Known) *Known {
			now, last = now.ended(s.Session, time.Now(), s.byAgent.Load())
			return now
		})
		r.cfg.Reports.Left(id) // also of an agent that was dropped meanwhile, of which nothing else tells
	}
	if last {
		r.cfg.Log.Info("agent disconnected", slog.String("agent", id))
	}
}

// letGo forgets the connection of a session that ended here, unless the agent has had
// another one since.
func (r *Sessions) letGo(agent, session string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns[agent].session == session {
		delete(r.conns, agent)
	}
}

// Wait is closed at the next report, connect or disconnect, at whichever server, if not
// before.
func (r *Sessions) Wait() <-chan struct{} {
	_, changed := r.cfg.Shared.Get()
	return changed
}

// Connected lists the sessions of all servers by agent id.
func (r *Sessions) Connected() []*Session { return slices.Collect(r.known().sessions()) }

// Loaded reports whether every agent that is connected to any server has loaded a policy
// revision.
func (r *Sessions) Loaded(revision string) bool {
	for s := range r.known().sessions() {
		if s.Latest().GetPolicyRevision() != revision {
			return false
		}
	}
	return true
}

// Of returns an agent's session, nil if it is not connected, and what stayed of the last that ended.
func (r *Sessions) Of(id string) (*Session, LastSession) {
	run := r.known().run(id)
	return run.session, run.last
}

// Drop lets go of all that is known of the runs of an agent that was deleted. A session that it
// has still ends, and Reports is told of that.
func (r *Sessions) Drop(id string) {
	r.mu.Lock()
	delete(r.conns, id)
	r.forgets(id)
	r.mu.Unlock()
	r.cfg.Shared.Update(func(now *Known) *Known { return now.without(id) })
}

// of is the stream that an agent has here, nil if it has none.
func (r *Sessions) of(agent string) *stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.here[agent]
}
