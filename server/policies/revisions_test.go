package policies_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"signet.example/internal/watched"
	"signet.example/mesh/graphtest"
	"signet.example/policy"
	"signet.example/policy/repo"
	"signet.example/server/policies"
	"signet.example/server/shared"
	"signet.example/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what revisions are given: one store, one agent, one source.
type world struct {
	mu     sync.Mutex
	last   *store.PolicyRow
	puts   int
	full   int    // so many times nothing can be stored
	loaded string // by the agent
	report chan struct{}
	look   policies.Look
	read   func(failed string) (policies.Reading, error)
	reads  []string // with which failed commit each was asked
	// storing is closed when a revision is being stored, which waits for stored; nil: it does not.
	storing, stored chan struct{}

	inForce    watched.Value[*policies.State]
	activating shared.Mutex
}

func newWorld(t *testing.T) *world {
	t.Helper()
	g := graphtest.Graph(t, "m.yaml", []byte("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n"))
	return &world{report: make(chan struct{}), activating: shared.NewMutex(), look: policies.Look{Graph: g, Sources: []repo.Source{{Name: "main", URL: "https://git.example/p", Branch: "main", Poll: time.Minute}}}}
}

func (w *world) LastRevision(context.Context) (store.PolicyRow, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return store.PolicyRow{}, store.ErrNotFound
	}
	return *w.last, nil
}

func (w *world) PutRevision(_ context.Context, row store.PolicyRow) error {
	if w.storing != nil {
		close(w.storing)
		<-w.stored
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full > 0 {
		w.full--
		return errors.New("the disk is full")
	}
	w.last = &row
	w.puts++
	return nil
}

func (w *world) Loaded(revision string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loaded == revision
}

func (w *world) Wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report
}

// reports has the agent say that it loaded a revision.
func (w *world) reports(revision string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded = revision
	close(w.report)
	w.report = make(chan struct{})
}

// revisions are those of a server that is alone.
func (w *world) revisions(t *testing.T) *policies.Revisions {
	t.Helper()
	w.inForce.Set(nil)
	return w.another(t, func() {})
}

// another are those of a server beside the others.
func (w *world) another(t *testing.T, changed func()) *policies.Revisions {
	t.Helper()
	p := policies.New(policies.Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("test.example"), Shared: &w.inForce, Activating: w.activating,
		Store: w, Agents: w, Dir: "/nowhere", Changed: changed,
		Log: slog.New(slog.DiscardHandler), Clock: time.Now, Failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"source"}),
		Look: func() policies.Look { return w.look },
		Read: func(_ context.Context, _ repo.Source, _, failed string) (policies.Reading, error) {
			w.mu.Lock()
			w.reads = append(w.reads, failed)
			w.mu.Unlock()
			return w.read(failed)
		},
	})
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func tree(commit string) repo.Tree {
	return repo.Tree{URL: "https://git.example/p", Commit: commit, Modules: []policy.Module{{Path: "a.rego", Rego: "package signet.authz # " + commit}}}
}

// A route is not stamped with a revision that an agent does not have, unless that
// agent takes too long.
func TestRoutesAreStampedWhenTheAgentHasLoadedOrTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.revisions(t)
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.RunStamp(ctx) }()
		sync := func(commit string) string {
			w.read = func(string) (policies.Reading, error) {
				return policies.Reading{Tree: tree(commit), Commit: commit}, nil
			}
			st, err := p.Sync(t.Context(), w.look.Sources[0])
			if err != nil || st.GetError() != "" {
				t.Fatal(st, err)
			}
			return st.GetRevision()
		}
		first := p.State().Stamp
		second := sync("two")
		time.Sleep(time.Second)
		if s := p.State(); s.Stamp != first || s.Current.GetId() != second {
			t.Errorf("stamped %s before the agent has it; in force %s", s.Stamp, s.Current.GetId())
		}
		w.reports(second)
		synctest.Wait()
		if s := p.State(); s.Stamp != second {
			t.Errorf("stamped %s after the agent has %s", s.Stamp, second)
		}
		third := sync("three")
		time.Sleep(policies.StampDeadline + time.Second)
		synctest.Wait()
		if s := p.State(); s.Stamp != third {
			t.Errorf("stamped %s: an agent holds the revision up for ever", s.Stamp)
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Two servers have one store: what one put in force, the other serves from its start.
func TestASecondServerServesWhatTheFirstPutInForce(t *testing.T) {
	w := newWorld(t)
	w.read = func(string) (policies.Reading, error) { return policies.Reading{Tree: tree("one"), Commit: "one"}, nil }
	first := w.revisions(t)
	st, err := first.Sync(t.Context(), w.look.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	second := w.revisions(t)
	if got := second.State().Current.GetId(); got != st.GetRevision() || got != first.State().Current.GetId() {
		t.Errorf("the first has %s, the second %s", st.GetRevision(), got)
	}
}

// reading has every reading come out as this commit.
func (w *world) reading(commit string) {
	w.read = func(string) (policies.Reading, error) {
		return policies.Reading{Tree: tree(commit), Commit: commit}, nil
	}
}

func TestTwoServersServeOneRevisionUnderOneStamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.look.Sources[0].Poll = 24 * time.Hour
		w.reading("one")
		ctx, end := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var told [2]atomic.Int64
		var servers [2]*policies.Revisions
		for i := range servers {
			servers[i] = w.another(t, func() { told[i].Add(1) })
			for _, part := range []func(context.Context) error{servers[i].Run, servers[i].RunStamp} {
				all.Go(func() { _ = part(ctx) })
			}
		}
		synctest.Wait()
		first := servers[1].State()
		w.reports(first.Current.GetId())
		time.Sleep(time.Minute)
		before := told[1].Load()
		w.reading("two")
		st, err := servers[0].Sync(t.Context(), w.look.Sources[0])
		if err != nil || st.GetRevision() == first.Current.GetId() {
			t.Fatal(st, err)
		}
		synctest.Wait()
		for i, p := range servers {
			s := p.State()
			if s.Current.GetId() != st.GetRevision() || s.Stamp != first.Current.GetId() || len(s.Keep) != 2 {
				t.Errorf("server %d has %s in force, %s as stamp and keeps %d", i, s.Current.GetId(), s.Stamp, len(s.Keep))
			}
			if list := p.Statuses(); len(list) != 1 || list[0].GetCommit() != "two" || list[0].GetRevision() != st.GetRevision() {
				t.Errorf("server %d: %v", i, list)
			}
		}
		if told[1].Load() == before {
			t.Error("the other server's views are not made again")
		}
		w.reports(st.GetRevision())
		synctest.Wait()
		if s := servers[1].State(); s.Stamp != st.GetRevision() {
			t.Errorf("the other server stamps %s", s.Stamp)
		}
		// Both have read the same: there is nothing to put in force again.
		if again, err := servers[1].Sync(t.Context(), w.look.Sources[0]); err != nil || again.GetChanged() || w.puts != 3 {
			t.Errorf("%v, %v, and %d revisions were put", again, err, w.puts)
		}
		end()
		all.Wait()
	})
}

// It would put the exemptions of the mesh of before in force.
func TestAServerThatHasReadLessOfTheStorePutsNothingInForce(t *testing.T) {
	w := newWorld(t)
	w.reading("one")
	first, behind := w.another(t, func() {}), w.another(t, func() {})
	w.look.Revision = 7
	if st, err := first.Sync(t.Context(), w.look.Sources[0]); err != nil || st.GetError() != "" {
		t.Fatal(st, err)
	}
	good := first.State()
	w.look.Revision = 6
	w.reading("two")
	if st, err := behind.Sync(t.Context(), w.look.Sources[0]); err != nil || !strings.Contains(st.GetError(), "revision 7 of the mesh is not read here yet") {
		t.Errorf("%v, %v", st, err)
	}
	if first.State() != good {
		t.Error("another revision is in force")
	}
}

// A reading that was killed is not made again for the same commit by itself, and the
// last good revision stays.
func TestACommitWhoseReadingWasKilledIsLookedAtAgainByHandOnly(t *testing.T) {
	w := newWorld(t)
	w.read = func(string) (policies.Reading, error) { return policies.Reading{Tree: tree("one"), Commit: "one"}, nil }
	p := w.revisions(t)
	src := w.look.Sources[0]
	if _, err := p.Sync(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	good := p.State().Current.GetId()
	w.read = func(string) (policies.Reading, error) {
		return policies.Reading{Commit: "two"}, policies.Hard(errors.New("it was ended"))
	}
	for range 2 {
		st, err := p.Sync(t.Context(), src)
		if err != nil || st.GetError() != "it was ended" || st.GetRevision() != good {
			t.Errorf("%v, %v", st, err)
		}
	}
	w.read = func(failed string) (policies.Reading, error) {
		return policies.Reading{Commit: failed, Unchanged: true}, nil
	}
	policies.Poll(t.Context(), p, src)
	if want := []string{"", "", "", "two"}; !slices.Equal(w.reads, want) {
		t.Errorf("read with %q, want %q", w.reads, want)
	}
}

// The mesh was stored, and says that its policy denies; where the revision could not be, that was
// tried again when a source was next read: an hour later where there is none.
func TestARevisionOfTheMeshThatCouldNotBeStoredIsMadeAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.look.Sources = nil
		p := w.revisions(t)
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		first := p.State().Current.GetId()
		g := graphtest.Graph(t, "m.yaml", []byte(observing))
		w.mu.Lock()
		w.full = 2
		w.mu.Unlock()
		w.look = policies.Look{Revision: 1, Graph: g}
		p.Renew()
		synctest.Wait()
		if p.State().Current.GetId() != first {
			t.Fatal("the control: it could not be stored")
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if s := p.State(); s.Current.GetId() == first || len(s.Current.GetObserved()) != 1 {
			t.Errorf("in force is %v", s.Current)
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

const observing = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
---
apiVersion: signet.example/v1alpha1
kind: MeshOptions
metadata: {name: shop}
spec: {authorization: observe}
`

// A store that is slow, or a database elsewhere, holds up the revision that it is to keep
// and nothing else.
func TestWhileARevisionIsStoredWhatIsInForceIsTold(t *testing.T) {
	w := newWorld(t)
	p := w.revisions(t)
	first := p.State().Current.GetId()
	w.read = func(string) (policies.Reading, error) {
		return policies.Reading{Tree: tree("two"), Commit: "two"}, nil
	}
	w.storing, w.stored = make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := p.Sync(t.Context(), w.look.Sources[0])
		done <- err
	}()
	<-w.storing
	told := make(chan struct{})
	go func() {
		defer close(told)
		_, _ = p.Statuses(), p.PackagesInForce()
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("what is in force is not told before the next revision is stored")
	}
	if p.State().Current.GetId() != first {
		t.Error("it is in force before it is stored")
	}
	close(w.stored)
	if err := <-done; err != nil || p.State().Current.GetId() == first {
		t.Errorf("it is not in force when it is stored: %v", err)
	}
	<-told
}
