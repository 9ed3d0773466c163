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

// roster is the agents that joined, held in memory so that no call waits for
// the database. The store is the truth: the roster follows it.
type roster struct {
	store *store.Store

	// following is held from reading or writing the store to changing the picture:
	// an agent that joins meanwhile must not be lost, nor a deleted one come back.
	following sync.Mutex

	mu   sync.RWMutex           // guards the following
	by   map[string]store.Agent // by id
	keys map[string]string      // ids by host key, SHA-256 of the SPKI
	bans []string               // ids of those that are banned, sorted; replaced, not changed
	n    uint64                 // of changes so far
}

// version is another one after each change.
func (r *roster) version() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.n
}

// banned lists the ids of those that are banned, sorted.
func (r *roster) banned() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.bans
}

func newRoster(s *store.Store) *roster {
	return &roster{store: s, by: map[string]store.Agent{}, keys: map[string]string{}}
}

// load replaces the picture with what the store has.
func (r *roster) load(ctx context.Context) error {
	r.following.Lock()
	defer r.following.Unlock()
	agents, err := r.store.Agents(ctx)
	if err != nil {
		return fmt.Errorf("load agents: %w", err)
	}
	by, keys := make(map[string]store.Agent, len(agents)), make(map[string]string, len(agents))
	var bans []string
	for _, a := range agents {
		by[a.ID], keys[string(a.HostKey)] = a, a.ID
		if a.Banned {
			bans = append(bans, a.ID)
		}
	}
	slices.Sort(bans)
	r.mu.Lock()
	r.by, r.keys, r.bans = by, keys, bans
	r.n++
	r.mu.Unlock()
	return nil
}

// enrol stores an agent that joins.
func (r *roster) enrol(ctx context.Context, a store.Agent) error {
	r.following.Lock()
	defer r.following.Unlock()
	if err := r.store.PutAgent(ctx, a); err != nil {
		return err
	}
	r.put(a)
	return nil
}

func (r *roster) put(a store.Agent) {
	r.mu.Lock()
	r.by[a.ID], r.keys[string(a.HostKey)] = a, a.ID
	r.n++
	r.mu.Unlock()
}

// hasKey reports whether an agent joined with this host key. It costs a look into
// memory, whoever asks.
func (r *roster) hasKey(hostKey []byte) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.keys[string(hostKey)]
	return ok
}

// servesKey reports whether the agent that joined with this host key is to be served.
func (r *roster) servesKey(hostKey []byte) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	id, ok := r.keys[string(hostKey)]
	return ok && !r.by[id].Banned
}

// get finds an agent, banned or not.
func (r *roster) get(id string) (store.Agent, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a, ok := r.by[id]
	return a, ok
}

// standing finds an agent that is to be served: one that joined and is not banned.
func (r *roster) standing(id string) (store.Agent, error) {
	a, ok := r.get(id)
	if !ok {
		return a, reason(errIdentity, "agent %s is not known here; join again with a new token", id)
	}
	if a.Banned {
		return a, banned(id)
	}
	return a, nil
}

// banned is what a banned agent is told, and ends by: elsewhere it is refused by
// errIdentity, or is refused one thing.
func banned(id string) error {
	return reason(errDenied, "agent %s is banned; its host can only join as a new agent, with a new token", id)
}

// all lists the agents by id.
func (r *roster) all() []store.Agent {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.SortedFunc(maps.Values(r.by), func(a, b store.Agent) int { return strings.Compare(a.ID, b.ID) })
}
