package roster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"signet.example/internal/watched"
	"signet.example/server/fault"
	"signet.example/server/roster"
	"signet.example/store"
)

// rows are agents in a store that takes its time.
type rows struct {
	mu    sync.Mutex
	list  []store.Agent
	reads int

	joined watched.Value[uint64]
}

func (r *rows) Joined() (uint64, <-chan struct{}) { return r.joined.Get() }

func (r *rows) Agents(context.Context) ([]store.Agent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer time.Sleep(time.Millisecond)
	r.reads++
	return slices.Clone(r.list), nil
}

func (r *rows) PutAgent(_ context.Context, a store.Agent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, a)
	r.joined.Update(func(n uint64) uint64 { return n + 1 })
	return nil
}

// newRoster is of agents that are in no group; their method is their principal's name.
func newRoster(s roster.Agents) *roster.Roster {
	return roster.New(roster.Config{Store: s, Place: func([]string) string { return "" }, Principal: func(method string, _ []string) string { return method }, Takes: takes})
}

// takes is of all but one method.
func takes(method string, _ []string) error {
	if method == "role:gone" {
		return errors.New("its role is gone")
	}
	return nil
}

func TestAnAgentWhoseWayInIsTakenNoMoreIsNotServed(t *testing.T) {
	r := newRoster(&rows{})
	for _, method := range []string{"role:web", "role:gone"} {
		if err := r.Enrol(t.Context(), store.Agent{ID: method, HostKey: []byte(method), Method: method}); err != nil {
			t.Fatal(err)
		}
		_, err := r.Standing(method)
		a, byKey := r.ServesKey([]byte(method))
		if served := method == "role:web"; (err == nil) != served || !served && (!errors.Is(err, fault.Denied) || err.Error() != "agent role:gone is not served any more: its role is gone") || byKey != served || a.ID != method {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, ok := r.ServesKey([]byte("nobody's")); ok {
		t.Error("a key of nobody is served")
	}
}

func TestAgentsThatAreNotBannedCountAmongThoseOfTheirPrincipal(t *testing.T) {
	all := &rows{}
	r := newRoster(all)
	enrol := func(a store.Agent) {
		t.Helper()
		if err := r.Enrol(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		enrol(store.Agent{ID: fmt.Sprint(n), HostKey: []byte{byte(n)}, Method: "role:web"})
	}
	enrol(store.Agent{ID: "host", HostKey: []byte("host")})
	enrol(store.Agent{ID: "1", HostKey: []byte("another"), Method: "role:web"}) // the same once more
	for when, want := range map[string]int{"as they joined": 3, "": 0} {
		if n := r.JoinedBy(when[:min(len(when), 0)] + map[bool]string{true: "role:web", false: ""}[want > 0]); n != want {
			t.Errorf("%d agents %s, want %d", n, when, want)
		}
	}
}

// It would be unknown until the next change of anything, and told to join again.
func TestAnAgentThatJoinsWhileTheAgentsAreReadStaysKnown(t *testing.T) {
	r := newRoster(&rows{})
	for n := range 20 {
		id := fmt.Sprint("new-", n)
		var wg sync.WaitGroup
		var errs [2]error
		wg.Go(func() { errs[0] = r.Load(t.Context()) })
		wg.Go(func() { errs[1] = r.Enrol(t.Context(), store.Agent{ID: id, HostKey: []byte(id)}) })
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.Get(id); !ok {
			t.Fatalf("%s is not known", id)
		}
	}
}

// Each join at a server alone would else cost a look at all agents.
func TestAnAgentThatJoinedAtAnotherServerIsKnownAndOneThatJoinedHereCostsNoLook(t *testing.T) {
	all := &rows{}
	here, there := newRoster(all), newRoster(all)
	for n := range 10 {
		if err := here.Enrol(t.Context(), store.Agent{ID: fmt.Sprint(n), HostKey: []byte{byte(n)}}); err != nil {
			t.Fatal(err)
		}
		if err := here.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if all.reads != 0 {
		t.Errorf("all agents were read %d times", all.reads)
	}
	for range 3 {
		if err := there.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := there.Standing("7"); err != nil || all.reads != 1 {
		t.Errorf("%v, after %d looks", err, all.reads)
	}
}
