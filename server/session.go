package server

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
)

const (
	// explainDeadline is how long the connected agents have to look up a decision.
	explainDeadline = time.Second
	// explainRest is how long the others still have when one has it. An agent looks
	// for 200 ms before it says that it has not.
	explainRest = 400 * time.Millisecond
)

// session is one connected agent.
type session struct {
	caller *caller
	since  time.Time
	down   chan *api.SessionDown
	ask    chan *probe // has room for the one that is outstanding
	end    context.CancelCauseFunc
	gone   chan struct{} // closed when its stream has ended

	mu     sync.Mutex  // guards the following three
	report *api.Report // the latest; replaced whole, never changed
	probe  *probe      // the one that is outstanding, nil if none is
	idle   time.Time   // since when the reader waits for a message, zero while it has one

	taking sync.Mutex // held while a report is taken
	over   bool       // nothing is taken any more; guarded by taking
	// unserved is what the agent was told last, if it was told; guarded by taking.
	unserved map[string]string
	told     bool
}

// tellUnserved tells the agent to which of its proxies no caller is sent, where
// that has changed, and once on each stream: an earlier one may have told another
// thing. The caller holds taking.
func (s *session) tellUnserved(reasons map[string]string) {
	if s.told && maps.Equal(reasons, s.unserved) {
		return
	}
	select {
	case s.down <- &api.SessionDown{Message: &api.SessionDown_Unserved{Unserved: &api.Unserved{Reasons: reasons}}}:
		s.unserved, s.told = reasons, true
	default: // it has not read for long: with its next report
	}
}

// retire ends the taking of reports: one that is still on its way must not come
// after what is done when a session ends or is replaced.
func (s *session) retire() {
	s.taking.Lock()
	defer s.taking.Unlock()
	s.over = true
}

// take calls take with a report, unless the session is over.
func (s *session) take(r *api.Report, take func(*session, *api.Report)) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.over {
		return
	}
	s.mu.Lock()
	s.report = r
	s.mu.Unlock()
	take(s, r)
}

func (s *session) latest() *api.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// parting is what stays of an agent's last session.
type parting struct {
	report *api.Report // its latest, nil if it made none
	at     time.Time
}

// sessions are the connected agents, one session each: the newest wins, since an
// agent that reconnects may do so before the old connection is seen to be dead.
type sessions struct {
	log      *slog.Logger
	reported func(s *session, r *api.Report) // called in the session's goroutine
	gone     func(s *session)                // called when the agent's last session ended

	changes watched.Value[uint64] // reports, connects and disconnects so far, for those who wait for one

	mu      sync.Mutex             // guards the following, and every question
	by      map[string]*session    // by agent id
	left    map[string]parting     // of agents that went away
	waiting map[string][]*question // by decision id

	receiving sync.WaitGroup // the readers of sessions, which outlive their handlers a little
}

// close waits for the readers of all sessions. No handler may be running any more.
func (r *sessions) close() { r.receiving.Wait() }

func newSessions(log *slog.Logger) *sessions {
	return &sessions{
		log: log, by: map[string]*session{}, left: map[string]parting{},
		waiting: map[string][]*question{},
	}
}

// serve runs one session until the agent leaves or is replaced.
func (r *sessions) serve(stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	c, err := callerOf(stream.Context())
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	s := &session{
		caller: c, since: time.Now(), down: make(chan *api.SessionDown, 64), ask: make(chan *probe, 1), end: end, gone: make(chan struct{}),
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

func (r *sessions) receive(ctx context.Context, stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown], s *session) error {
	limit := rate.NewLimiter(reportPerSecond, reportBurst)
	for {
		s.waits(true)
		m, err := stream.Recv()
		s.waits(false)
		if err != nil {
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

func (r *sessions) handle(s *session, m *api.SessionUp) error {
	switch m := m.GetMessage().(type) {
	case *api.SessionUp_Report:
		if err := checkReport(m.Report); err != nil {
			return err
		}
		s.take(m.Report, r.reported)
		r.announce()
	case *api.SessionUp_Explain:
		r.answer(s, m.Explain)
	case *api.SessionUp_Alive: // to a probe that is not outstanding
	}
	return nil
}

// checkReport bounds what an agent makes the server remember and show.
func checkReport(r *api.Report) error {
	if len(r.GetProxies()) > maxProxies || len(r.GetSvids()) > maxSVIDs || len(r.GetFindings()) > maxProxies || len(r.GetOwn()) > maxProxies {
		return reason(errInvalid, "report: more than %d proxies or findings, or %d SVIDs", maxProxies, maxSVIDs)
	}
	for _, p := range r.GetProxies() {
		if len(p.GetPorts()) > maxPorts || len(p.GetRejected()) > maxProxies {
			return reason(errInvalid, "report: proxy with more than %d ports or %d rejected resources", maxPorts, maxProxies)
		}
	}
	if len(r.GetOwn()) == 0 { // an agent of the version before has them in words alone
		for _, f := range r.GetFindings() {
			kind, text, _ := strings.Cut(f, ": ")
			r.Own = append(r.Own, &api.AgentFinding{KindWord: kind, Text: text})
		}
	}
	plainMessage(r.ProtoReflect())
	api.Reconcile(r) // an agent of the version before has words for its states
	return nil
}

// plainMessage makes plain text of every string in a message that an agent wrote.
// A new field of a report is then as harmless as the old ones.
func plainMessage(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			plainMap(f, v.Map())
		case f.IsList():
			for i := range v.List().Len() {
				if item, changed := plainValue(f, v.List().Get(i)); changed {
					v.List().Set(i, item)
				}
			}
		default:
			if item, changed := plainValue(f, v); changed {
				m.Set(f, item)
			}
		}
		return true
	})
}

func plainMap(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if f.MapKey().Kind() == protoreflect.StringKind && plainText(k.String()) != k.String() {
			m.Clear(k) // a name that cannot be shown is nobody's
		} else if item, changed := plainValue(f.MapValue(), v); changed {
			m.Set(k, item)
		}
		return true
	})
}

func plainValue(f protoreflect.FieldDescriptor, v protoreflect.Value) (protoreflect.Value, bool) {
	switch f.Kind() {
	case protoreflect.StringKind:
		s := plainText(v.String())
		return protoreflect.ValueOfString(s), s != v.String()
	case protoreflect.MessageKind:
		plainMessage(v.Message())
	default: // numbers and bytes are printed as such
	}
	return v, false
}

// plainText bounds a string that an agent or operator wrote and that a terminal
// will show (A21), and takes out what would not be shown as itself.
func plainText(s string) string { return plain.Clip(s, maxText) }

func (r *sessions) enter(s *session) {
	id := s.caller.agent.ID
	r.mu.Lock()
	old := r.by[id]
	r.by[id] = s
	r.mu.Unlock()
	if old != nil {
		old.retire()
		old.end(reason(errUnavailable, "replaced by a newer session of this agent"))
	}
	r.log.Info("agent connected", slog.String("agent", id), slog.String("remote", s.caller.remote.String()))
}

func (r *sessions) leave(s *session) {
	s.retire()
	id := s.caller.agent.ID
	r.mu.Lock()
	last := r.by[id] == s
	if last {
		delete(r.by, id)
		r.left[id] = parting{s.latest(), time.Now()}
	}
	r.mu.Unlock()
	if last {
		r.log.Info("agent disconnected", slog.String("agent", id))
		r.gone(s)
		r.announce()
	}
}

// announce wakes those who watch reports.
func (r *sessions) announce() {
	r.changes.Update(func(n uint64) uint64 { return n + 1 })
}

// wait is closed at the next report, connect or disconnect.
func (r *sessions) wait() <-chan struct{} {
	_, changed := r.changes.Get()
	return changed
}

// connected lists the sessions by agent id.
func (r *sessions) connected() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*session, 0, len(r.by))
	for _, s := range r.by {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *session) int { return strings.Compare(a.caller.agent.ID, b.caller.agent.ID) })
	return list
}

// loaded reports whether every connected agent has loaded a policy revision.
func (r *sessions) loaded(revision string) bool {
	for _, s := range r.connected() {
		if s.latest().GetPolicyRevision() != revision {
			return false
		}
	}
	return true
}

// of returns an agent's session, if it is connected, else what stayed of its last.
func (r *sessions) of(id string) (*session, parting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[id], r.left[id]
}

// drop lets go of what stayed of an agent that was deleted.
func (r *sessions) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.left, id)
}

// question is asked of all agents that are connected. Guarded by sessions.mu.
type question struct {
	open      map[string]bool // agents whose answer is awaited
	decisions []*api.Decision
	found     chan struct{} // closed with the first decision
	all       chan struct{} // closed with the last answer
}

// explain asks every connected agent for a decision, in parallel, and returns
// it, or nil when none has it in time. Ids are random: where two agents claim
// one, one of them makes it up, and nobody can tell from here which.
func (r *sessions) explain(ctx context.Context, id string) (*api.Decision, error) {
	q := &question{open: map[string]bool{}, found: make(chan struct{}), all: make(chan struct{})}
	r.ask(id, q)
	defer r.forget(id, q)
	ctx, cancel := context.WithTimeout(ctx, explainDeadline)
	defer cancel()
	select {
	case <-q.found:
		rest := time.NewTimer(explainRest)
		defer rest.Stop()
		select {
		case <-q.all:
		case <-rest.C:
		}
	case <-q.all:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch all := q.decisions; len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	default:
		return nil, reason(errConflict, "%s and %s both claim decision %s: ids are random, so one of these hosts makes it up",
			all[0].GetNode(), all[1].GetNode(), id)
	}
}

// ask puts a question to the agents.
func (r *sessions) ask(id string, q *question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for agent, s := range r.by {
		select {
		case s.down <- &api.SessionDown{Message: &api.SessionDown_Explain{Explain: id}}:
			q.open[agent] = true
		default: // its queue is full: it will not answer within the deadline
		}
	}
	if len(q.open) == 0 {
		close(q.all)
		return
	}
	r.waiting[id] = append(r.waiting[id], q)
}

func (r *sessions) forget(id string, q *question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[id] = slices.DeleteFunc(r.waiting[id], func(o *question) bool { return o == q })
	if len(r.waiting[id]) == 0 {
		delete(r.waiting, id)
	}
}

// answer files an agent's answer, one for each question. The node is written by
// us: an agent cannot speak in another's name.
func (r *sessions) answer(s *session, a *api.ExplainAnswer) {
	var d *api.Decision
	if a.GetDecision().GetId() == a.GetId() && a.GetDecision() != nil {
		d, _ = proto.Clone(a.GetDecision()).(*api.Decision) // Clone returns what it was given
		plainMessage(d.ProtoReflect())
		d.Node = s.caller.id.String()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.waiting[a.GetId()] {
		if !q.open[s.caller.agent.ID] {
			continue
		}
		delete(q.open, s.caller.agent.ID)
		if d != nil {
			if q.decisions = append(q.decisions, d); len(q.decisions) == 1 {
				close(q.found)
			}
		}
		if len(q.open) == 0 {
			close(q.all)
		}
	}
}
