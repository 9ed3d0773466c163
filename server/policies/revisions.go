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
	"signet.example/server/shared"
	"signet.example/store"
)

const (
	// syncDeadline bounds one fetch, test and compile of a policy source. The process
	// that does it has ended before.
	syncDeadline = childDeadline + 30*time.Second
	// syncRetry is how soon a failed source is tried again, unless its own
	// interval is shorter.
	syncRetry = 30 * time.Second
	// renewRetry is how soon a revision of the mesh as it is is made again where that failed.
	renewRetry = 5 * time.Second
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

// State is what is served now, by all servers of one store. Immutable.
type State struct {
	// Current is the newest revision. Agents have it before routes carry its stamp.
	Current *api.PolicyRevision
	// Keep is what agents hold: Current, the one before, and the one stamped.
	Keep []*api.PolicyRevision
	// Stamp is the revision that routes carry (D3: sent means stamped).
	Stamp string
	// Since is when Current became that.
	Since time.Time
	// Source names the PolicySource that Current is of, "" for none; Model is the revision
	// of what is stored that it was made with. A server that has not read that far yet
	// makes no other one.
	Source string
	Model  uint64
}

// Look is what revisions are made of, beside the repositories: one consistent look at
// what is stored.
type Look struct {
	Revision uint64 // of what is stored
	Sources  []repo.Source
	Graph    *mesh.Graph
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
	// Shared is the State, nil where no server has loaded it yet.
	Shared shared.Value[*State]
	// Activating is held from the look at what is in force until another revision is.
	Activating shared.Lock
	Store      Store
	Agents     Agents
	Dir        string // of git clones
	Look       func() Look
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
	tests               int // how many passed; 0 where another process has put it in force
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

	renew watched.Signal // wakes Run: the mesh changed, or a source was read
	stamp watched.Signal // wakes RunStamp: a revision is to be stamped

	reading chan struct{}            // full while a source is read: one at a time
	mu      sync.Mutex               // guards the following; taken after reading and Activating
	failed  map[string]hardFailure   // by source
	took    map[string]time.Duration // the last reading, by source
	good    goodTree                 // changed by the holder of Activating alone
	inForce string                   // the revision that good was made into, or came from
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
func (p *Revisions) State() *State {
	now, _ := p.Shared.Get()
	return now
}

// Renew has Run look at the mesh and its sources again. It never waits.
func (p *Revisions) Renew() { p.renew.Wake() }

// Run polls the sources, and follows what other servers put in force, until ctx ends.
func (p *Revisions) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var polling sync.WaitGroup
	defer polling.Wait()
	var seen *State // of which nobody was told
	for {
		now, changed := p.Shared.Get()
		if now != seen {
			seen = now
			p.Changed()
			if now.Stamp != now.Current.GetId() {
				p.stamp.Wake()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			p.renew.Wake() // after another look
			continue
		case <-p.renew:
		case <-timer.C:
		}
		err := p.renewRevision(ctx)
		if err != nil && ctx.Err() == nil {
			p.Log.ErrorContext(ctx, "policy revision not renewed", slog.Any("err", err))
		}
		// Beside this loop: the mesh changes meanwhile, and its exemptions with it.
		next := p.poll(func(src repo.Source) {
			polling.Go(func() {
				p.syncOne(ctx, src, false)
				<-p.reading
				p.renew.Wake()
			})
		})
		if err != nil { // the mesh says already what is not in force
			next = min(next, renewRetry)
		}
		timer.Reset(next)
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
		st.Revision, st.Tests = p.revision(), int32(p.good.tests)                             //nolint:gosec // a count of tests
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
	return p.activate(ctx, &goodTree{source: source, url: got.Tree.URL, commit: got.Tree.Commit, modules: got.Tree.Modules, packages: got.Packages, warnings: got.Warnings, tests: got.Tests})
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

// PackagesInForce are the nodes' packages of the policy that is served.
func (p *Revisions) PackagesInForce() []policy.Package {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.good.packages
}
