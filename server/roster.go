package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"signet.example/store"
)

// roster is the agents that ever joined, held in memory so that no call waits for
// the database. The store is the truth: the roster follows it.
type roster struct {
	store *store.Store

	mu sync.RWMutex
	by map[string]store.Agent
}

func newRoster(s *store.Store) *roster { return &roster{store: s, by: map[string]store.Agent{}} }

// load replaces the picture with what the store has.
func (r *roster) load(ctx context.Context) error {
	agents, err := r.store.Agents(ctx)
	if err != nil {
		return fmt.Errorf("load agents: %w", err)
	}
	by := make(map[string]store.Agent, len(agents))
	for _, a := range agents {
		by[a.ID] = a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, a := range r.by {
		if _, ok := by[id]; !ok { // joined since the store was read: agents are never deleted
			by[id] = a
		}
	}
	r.by = by
	return nil
}

// put records an agent that has just joined.
func (r *roster) put(a store.Agent) {
	r.mu.Lock()
	r.by[a.ID] = a
	r.mu.Unlock()
}

// get finds an agent, banned or not.
func (r *roster) get(id string) (store.Agent, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a, ok := r.by[id]
	return a, ok
}

// all lists the agents by id.
func (r *roster) all() []store.Agent {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.SortedFunc(maps.Values(r.by), func(a, b store.Agent) int { return strings.Compare(a.ID, b.ID) })
}
