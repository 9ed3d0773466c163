package policies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/policy/repo"
	"signet.example/store"
)

const (
	// syncDeadline bounds one fetch, test and compile of a policy source. The process
	// that does it has ended before.
	syncDeadline = childDeadline + 30*time.Second
	// syncRetry is how soon a failed source is tried again, unless its own
	// interval is shorter.
	syncRetry = 30 * time.Second
	// syncShare bounds what a source takes that fails again and again: it rests so many
	// times as long as it took.
	syncShare = 10
	// StampDeadline is how long routes keep the old revision's stamp while agents
	// have not said that they loaded the new one. An agent that is stamped with a
	// revision it does not have denies, so laggards are waited for, but not for ever.
	StampDeadline = 3 * time.Second
)

// unread is how a source is tried again whose reading was killed before its commit
// was known.
var unread = retry.Policy{First: syncRetry, Most: time.Hour}

// State is what is served now. Immutable.
type State struct {
	// Current is the newest revision. Agents have it before routes carry its stamp.
	Current *api.PolicyRevision
	// Keep is what agents hold: Current, the one before, and the one stamped.
	Keep []*api.PolicyRevision
	// Stamp is the revision that routes carry (D3: sent means stamped).
	Stamp string
	// Since is when Current became that.
	Since time.Time
}

// Look is what revisions are made of, beside the repositories: one consistent look at
// what is stored.
type Look struct {
	Sources []repo.Source
	Graph   *mesh.Graph
}

// Store keeps what was in force.
type Store interface {
	// LastRevision is the one that was put last; store.ErrNotFound if there is none.
	LastRevision(ctx context.Context) (store.PolicyRow, error)
	// PutRevision is durable when it returns.
	PutRevision(ctx context.Context, row store.PolicyRow) error
}

// Agents are those that load revisions.
type Agents interface {
	// Loaded reports whether every connected agent has loaded a revision.
	Loaded(revision string) bool
	// Wait returns what is closed at the next report of one.
	Wait() <-chan struct{}
}

// Config of Revisions. Every field is needed.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Store       Store
	Agents      Agents
	Dir         string // of git clones
	Look        func() Look
	// Read reads one source into a folder; with failed, only where its commit is another one.
	Read     func(ctx context.Context, src repo.Source, dir, failed string) (Reading, error)
	Changed  func() // is called when the State is another. It must not wait
	Log      *slog.Logger
	Clock    func() time.Time
	Failures *prometheus.CounterVec // of readings, by source
}

// goodTree is the last tree whose tests passed and that compiled.
type goodTree struct {
	source, url, commit string
	modules             []policy.Module
	packages            []policy.Package // of virtual nodes
	renewed             *mesh.Graph      // of which the revision in force was made, with this tree; nil: of none
	warnings            []string
}

// hardFailure is a source whose reading was killed, or would be again.
type hardFailure struct {
	of     repo.Source
	commit string // "" where it was not known yet
	killed int    // readings in a row of which nothing else is known; 0 where the commit is
}

// Revisions fetches, tests and activates policy revisions. What fails leaves the
// last good revision in force and its error in the status.
type Revisions struct {
	Config

	state atomic.Pointer[State]
	renew watched.Signal // wakes Run: the mesh changed, or a source was read
	stamp watched.Signal // wakes RunStamp: a revision is to be stamped

	reading chan struct{}            // full while a source is read: one at a time
	mu      sync.Mutex               // guards the following; taken after reading, and before the store
	failed  map[string]hardFailure   // by source
	took    map[string]time.Duration // the last reading, by source
	good    goodTree
	status  map[string]*api.PolicyStatus
	tried   map[string]repo.Source // as it was when last tried
}

// New returns Revisions of which none is in force before Load.
func New(c Config) *Revisions {
	return &Revisions{
		Config: c, renew: watched.NewSignal(), stamp: watched.NewSignal(), reading: make(chan struct{}, 1),
		status: map[string]*api.PolicyStatus{}, tried: map[string]repo.Source{}, failed: map[string]hardFailure{}, took: map[string]time.Duration{},
	}
}

// State is what is served now; nil before Load.
func (p *Revisions) State() *State { return p.state.Load() }

// Renew has Run look at the mesh and its sources again. It never waits.
func (p *Revisions) Renew() { p.renew.Wake() }

// Load puts the last good revision in force, as the store has it: a restarted
// server serves it before it has reached any repository.
func (p *Revisions) Load(ctx context.Context) error {
	row, err := p.Store.LastRevision(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return p.renewRevision(ctx)
	}
	if err != nil {
		return fmt.Errorf("last policy revision: %w", err)
	}
	rev := &api.PolicyRevision{}
	if err := proto.Unmarshal(row.Body, rev); err != nil {
		return fmt.Errorf("stored policy revision %s: %w", row.ID, err)
	}
	p.mu.Lock()
	if row.Source != "" {
		p.good = goodTree{source: row.Source, url: rev.GetSource(), commit: rev.GetCommit()}
		for _, m := range rev.GetModules() {
			p.good.modules = append(p.good.modules, policy.Module{Path: m.GetPath(), Rego: m.GetRego()})
		}
		if p.good.packages, err = policy.Packages(p.good.modules); err != nil {
			p.Log.WarnContext(ctx, "the last good policy cannot be read any more", slog.Any("err", err))
		}
		p.status[row.Source] = &api.PolicyStatus{
			Source: row.Source, Url: rev.GetSource(), Commit: rev.GetCommit(), Revision: rev.GetId(),
			Modules: int32(len(rev.GetModules())), Synced: timestamppb.New(row.At), //nolint:gosec // bounded by repo.Fetch
		}
	}
	p.mu.Unlock()
	p.state.Store(&State{Current: rev, Keep: []*api.PolicyRevision{rev}, Stamp: rev.GetId()})
	return p.renewRevision(ctx)
}

// Run polls the sources until ctx ends.
func (p *Revisions) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var polling sync.WaitGroup
	defer polling.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.renew:
		case <-timer.C:
		}
		if err := p.renewRevision(ctx); err != nil && ctx.Err() == nil {
			p.Log.ErrorContext(ctx, "policy revision not renewed", slog.Any("err", err))
		}
		// Beside this loop: the mesh changes meanwhile, and its exemptions with it.
		timer.Reset(p.poll(func(src repo.Source) {
			polling.Go(func() {
				p.syncOne(ctx, src, false)
				<-p.reading
				p.renew.Wake()
			})
		}))
	}
}

// poll has the first source read that is due, where none is being read, and returns
// when the next one is due.
func (p *Revisions) poll(read func(src repo.Source)) time.Duration {
	next := time.Hour
	for _, src := range p.Look().Sources {
		wait := p.due(src)
		if wait > 0 {
			next = min(next, wait)
			continue
		}
		select {
		case p.reading <- struct{}{}:
			read(src)
		default: // the end of the one that is being read wakes run
		}
	}
	return next
}

// due reports in how long a source is to be fetched; a changed one at once.
func (p *Revisions) due(src repo.Source) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.status[src.Name]
	if st == nil || p.tried[src.Name] != src {
		return 0
	}
	wait := src.Poll
	if f, ok := p.failed[src.Name]; ok && f.of == src {
		if f.killed > 0 {
			wait = max(wait, unread.Delay(f.killed, 0))
		}
	} else if st.GetError() != "" {
		wait = max(min(wait, syncRetry), syncShare*p.took[src.Name])
	}
	return st.GetSynced().AsTime().Add(wait).Sub(p.Clock())
}

// Sync reads one source by hand, whatever came of it before, and returns what came of it now.
func (p *Revisions) Sync(ctx context.Context, src repo.Source) (*api.PolicyStatus, error) {
	select {
	case p.reading <- struct{}{}:
		defer func() {
			<-p.reading
			p.renew.Wake()
		}()
	case <-ctx.Done():
		return nil, fmt.Errorf("a policy source is being read: %w", ctx.Err())
	}
	return p.syncOne(ctx, src, true), nil
}

// syncOne fetches, tests and activates one source. The caller holds reading.
func (p *Revisions) syncOne(ctx context.Context, src repo.Source, byHand bool) *api.PolicyStatus {
	ctx, cancel := context.WithTimeout(ctx, syncDeadline)
	defer cancel()
	failures := p.Failures.WithLabelValues(src.Name) // there from the first time, so that its first increase shows
	failed := p.failure(src)
	if byHand {
		failed = hardFailure{}
	}
	begun := p.Clock()
	got, err := p.Read(ctx, src, filepath.Join(p.Dir, src.Name), failed.commit)
	if err == nil && got.Unchanged {
		return p.unchanged(src)
	}
	before := p.revision()
	p.failedBy(src, failed, got.Commit, err)
	if err == nil {
		err = p.accept(ctx, src.Name, got)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := &api.PolicyStatus{Source: src.Name, Url: got.Tree.URL, Synced: timestamppb.New(p.Clock()), Tests: int32(got.Tests)} //nolint:gosec // a count of tests
	if err != nil {
		st.Error = plain.Text(err.Error())
		failures.Inc()
		p.Log.WarnContext(ctx, "policy source failed; the last good revision stays", slog.String("source", src.Name), slog.Any("err", err))
	}
	if p.good.source == src.Name { // what is in force, not what was tried
		st.Url, st.Commit, st.Modules = p.good.url, p.good.commit, int32(len(p.good.modules)) //nolint:gosec // bounded by repo.Fetch
		st.Revision = p.revision()
		st.Changed = st.Revision != before
	}
	p.status[src.Name], p.tried[src.Name], p.took[src.Name] = st, src, p.Clock().Sub(begun)
	return p.withWarnings(st)
}

// accept puts a tree that passed its tests in force, unless a package of it may
// mean several virtual nodes.
func (p *Revisions) accept(ctx context.Context, source string, got Reading) error {
	if err := uncontested(p.Look().Graph, got.Packages); err != nil {
		return fmt.Errorf("commit %.12s: %w", got.Tree.Commit, err)
	}
	p.mu.Lock()
	p.good = goodTree{source: source, url: got.Tree.URL, commit: got.Tree.Commit, modules: got.Tree.Modules, packages: got.Packages, warnings: got.Warnings}
	p.mu.Unlock()
	return p.renewRevision(ctx)
}

// withWarnings is a copy of a status with the warnings of what is in force now. p.mu
// must be held.
func (p *Revisions) withWarnings(st *api.PolicyStatus) *api.PolicyStatus {
	out, _ := proto.Clone(st).(*api.PolicyStatus) // Clone returns what it was given
	if p.good.source == st.GetSource() {
		out.Warnings = append(slices.Clone(p.good.warnings), unclaimed(p.Look().Graph, p.good.packages)...)
	}
	return out
}

// failure is that of the source as it is now.
func (p *Revisions) failure(src repo.Source) hardFailure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.failed[src.Name]; f.of == src {
		return f
	}
	return hardFailure{}
}

// failedBy remembers a hard failure: the same commit is not read again, and where none
// was known the source is left alone, twice as long each time.
func (p *Revisions) failedBy(src repo.Source, before hardFailure, commit string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, hard := errors.AsType[hardError](err); !hard {
		if err == nil || commit != "" { // else nothing is known of the commit that failed
			delete(p.failed, src.Name)
		}
		return
	}
	f := hardFailure{of: src, commit: commit}
	if commit == "" {
		f.killed = before.killed + 1
	}
	p.failed[src.Name] = f
}

// unchanged is the status of a source whose commit still is the one that failed.
func (p *Revisions) unchanged(src repo.Source) *api.PolicyStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, _ := proto.Clone(p.status[src.Name]).(*api.PolicyStatus) // Clone returns what it was given
	if st == nil {
		st = &api.PolicyStatus{Source: src.Name}
	}
	st.Synced, st.Changed = timestamppb.New(p.Clock()), false
	p.status[src.Name], p.tried[src.Name] = st, src
	return st
}

// withoutRevision leaves out which revision an error is of: nobody has seen its id yet.
func withoutRevision(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// served leaves the tests out: they are run here and not shipped.
func served(modules []policy.Module) []policy.Module {
	return slices.DeleteFunc(slices.Clone(modules), policy.Module.IsTest)
}

// renewRevision makes the revision of the last good tree and the mesh as it is,
// records it, and hands it to the agents. Without a source everything is denied
// but the generated exemptions.
func (p *Revisions) renewRevision(ctx context.Context) error {
	m := p.Look()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.ContainsFunc(m.Sources, func(s repo.Source) bool { return s.Name == p.good.source }) {
		p.good = goodTree{} // its source was deleted
	}
	for name := range p.status {
		if !slices.ContainsFunc(m.Sources, func(s repo.Source) bool { return s.Name == name }) {
			delete(p.status, name)
			delete(p.tried, name)
			delete(p.failed, name)
			delete(p.took, name)
		}
	}
	if p.good.renewed != nil && m.Graph.SameHealthChecks(p.good.renewed) { // then the revision is the same
		p.good.renewed = m.Graph
		return nil
	}
	var contested []string
	for _, c := range Contested(m.Graph, p.good.packages) {
		contested = append(contested, c.Node)
	}
	rev := revisionMessage(policy.NewRevision(p.good.url, p.good.commit, p.good.modules, HealthExemptions(m.Graph, p.TrustDomain), contested...))
	old := p.state.Load()
	if old != nil && old.Current.GetId() == rev.GetId() {
		p.good.renewed = m.Graph
		return nil
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(rev)
	if err != nil {
		return fmt.Errorf("encode policy revision: %w", err)
	}
	row := store.PolicyRow{ID: rev.GetId(), Source: p.good.source, Commit: rev.GetCommit(), Body: body, At: p.Clock()}
	if err := p.Store.PutRevision(ctx, row); err != nil {
		return fmt.Errorf("record policy revision %s: %w", rev.GetId(), err)
	}
	next := nextState(old, rev)
	next.Since = p.Clock()
	p.state.Store(next)
	p.good.renewed = m.Graph
	p.Log.InfoContext(ctx, "policy revision active", slog.String("policy_rev", rev.GetId()),
		slog.String("commit", rev.GetCommit()), slog.Int("modules", len(rev.GetModules())))
	p.Changed()
	p.stamp.Wake()
	return nil
}

// nextState keeps what routes may still be stamped with.
func nextState(old *State, rev *api.PolicyRevision) *State {
	if old == nil {
		return &State{Current: rev, Keep: []*api.PolicyRevision{rev}, Stamp: rev.GetId()}
	}
	keep := []*api.PolicyRevision{rev}
	for _, r := range old.Keep {
		if r.GetId() != rev.GetId() && (r.GetId() == old.Stamp || r.GetId() == old.Current.GetId()) {
			keep = append(keep, r)
		}
	}
	return &State{Current: rev, Keep: keep, Stamp: old.Stamp}
}

// RunStamp moves the stamp to the current revision once the connected agents
// have loaded it, so that no route asks for a revision that its agent lacks.
func (p *Revisions) RunStamp(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.stamp:
		}
		id := p.revision()
		deadline := time.NewTimer(StampDeadline)
		for waiting := true; waiting; {
			next := p.Agents.Wait()
			if p.Agents.Loaded(id) {
				break
			}
			select {
			case <-ctx.Done():
				deadline.Stop()
				return nil
			case <-next:
			case <-p.stamp: // a newer revision: wait for that one
				id = p.revision()
				deadline.Reset(StampDeadline)
			case <-deadline.C:
				waiting = false
				p.Log.WarnContext(ctx, "not every agent loaded the policy revision in time; it is stamped now", slog.String("policy_rev", id))
			}
		}
		deadline.Stop()
		p.setStamp(id)
	}
}

func (p *Revisions) setStamp(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := *p.state.Load()
	if s.Stamp == id || s.Current.GetId() != id {
		return
	}
	s.Stamp = id
	p.state.Store(&s)
	p.Changed()
}

// revision is the id of the newest revision.
func (p *Revisions) revision() string {
	if s := p.state.Load(); s != nil {
		return s.Current.GetId()
	}
	return ""
}

// Statuses lists what came of each source's last sync, by name.
func (p *Revisions) Statuses() []*api.PolicyStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*api.PolicyStatus
	for _, name := range slices.Sorted(maps.Keys(p.status)) {
		list = append(list, p.withWarnings(p.status[name]))
	}
	return list
}

// revisionMessage is a revision as it travels and as it is stored.
func revisionMessage(r policy.Revision) *api.PolicyRevision {
	m := &api.PolicyRevision{Id: r.ID, Source: r.Source, Commit: r.Commit, Contested: r.Contested}
	for _, mod := range r.Modules {
		m.Modules = append(m.Modules, &api.PolicyModule{Path: mod.Path, Rego: mod.Rego})
	}
	for _, e := range r.Exemptions {
		m.Exemptions = append(m.Exemptions, &api.Exemption{
			Name: e.Name, Destination: e.Destination, Method: e.Method, Path: e.Path, Sources: e.Sources,
		})
	}
	return m
}

// PackagesInForce are the nodes' packages of the policy that is served.
func (p *Revisions) PackagesInForce() []policy.Package {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.good.packages
}
