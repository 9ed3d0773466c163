// Package roster holds the agents that have joined, in memory as the store has them: it finds
// them by id, host key or evidence, and knows which are banned and which group each is in.
//
// It must not know who is connected (that is package fleet), or how a host proves who it is.
//
// # Concurrency
//
// A [Roster] may be used by any number of goroutines. Which lock is taken before which stands
// on its fields.
package roster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"signet.example/server/fault"
	"signet.example/store"
)

// Agents is the store of the agents that have joined, shared by all servers. PutAgent returns when
// the row is durable. Agents and PutAgent are called by one goroutine at a time.
type Agents interface {
	Agents(ctx context.Context) ([]store.Agent, error)
	PutAgent(ctx context.Context, a store.Agent) error
	// Joined returns how often any server has put an agent, and a channel that is closed when
	// one is put again. It never waits.
	Joined() (n uint64, next <-chan struct{})
}

// Roster holds the agents in memory, so that no call waits for the database. The store is
// authoritative: the roster follows it.
type Roster struct {
	cfg Config

	// following is held from reading or writing the store until memory has changed too: an
	// agent that joins meanwhile must not be lost, and a deleted one must not come back.
	following sync.Mutex
	joined    atomic.Uint64 // the Agents.Joined that memory has; written under following

	mu       sync.RWMutex           // guards the following
	by       map[string]store.Agent // by id
	keys     map[string]string      // ids by host key, SHA-256 of the SPKI
	seen     map[evidence]string    // ids by evidence, of those that can give theirs again
	at       map[string]string      // by id, the groups of agents that selectors place
	joinedBy map[string]int         // by principal, how many there are; those that are banned do not count
	bans     []string               // ids of those that are banned, sorted; replaced, not changed
	n        uint64                 // of changes so far
}

// evidence identifies a host among those that joined by the same method.
type evidence struct{ method, key string }

func evidenceOf(a store.Agent) evidence { return evidence{a.Method, string(a.Evidence)} }

// Version returns a number that differs after each change.
func (r *Roster) Version() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.n
}

// Banned lists the ids of those that are banned, sorted.
func (r *Roster) Banned() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.bans
}

// Config of a Roster. Every field is needed. Place and Principal are called under its lock.
type Config struct {
	Store Agents
	// Place returns the group of a host with these selectors, "" for none.
	Place func(selectors []string) string
	// Principal returns by whose credentials an agent joined that others can join by, too, ""
	// where it has evidence of its own.
	Principal func(method string, selectors []string) string
	// Takes returns why an agent is not served any more that joined so; nil where it is.
	Takes func(method string, selectors []string) error
}

// New returns an empty roster; Load fills it.
func New(c Config) *Roster {
	return &Roster{
		cfg: c,
		by:  map[string]store.Agent{}, keys: map[string]string{}, seen: map[evidence]string{}, at: map[string]string{}, joinedBy: map[string]int{},
	}
}

// JoinedBy returns how many agents there are that joined by the credentials of a principal.
// Those that are banned do not count.
func (r *Roster) JoinedBy(principal string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.joinedBy[principal]
}

// Principals returns how many JoinedBy has of each.
func (r *Roster) Principals() map[string]int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.joinedBy)
}

// Load reads all agents from the store.
func (r *Roster) Load(ctx context.Context) error {
	r.following.Lock()
	defer r.following.Unlock()
	return r.load(ctx)
}

// Follow calls Load if agents have joined at other servers. Otherwise it returns at once.
func (r *Roster) Follow(ctx context.Context) error {
	if n, _ := r.cfg.Store.Joined(); n == r.joined.Load() {
		return nil
	}
	r.following.Lock()
	defer r.following.Unlock()
	if n, _ := r.cfg.Store.Joined(); n == r.joined.Load() { // the one that joined, did here
		return nil
	}
	return r.load(ctx)
}

// load is Load. Callers hold following.
func (r *Roster) load(ctx context.Context) error {
	n, _ := r.cfg.Store.Joined() // before reading: an agent that joins meanwhile causes another Load
	agents, err := r.cfg.Store.Agents(ctx)
	if err != nil {
		return fmt.Errorf("load agents: %w", err)
	}
	defer r.joined.Store(n)
	next := New(r.cfg)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range agents {
		next.add(a)
		if a.Banned {
			next.bans = append(next.bans, a.ID)
		}
	}
	slices.Sort(next.bans)
	r.by, r.keys, r.seen, r.at, r.joinedBy, r.bans = next.by, next.keys, next.seen, next.at, next.joinedBy, next.bans
	r.n++
	return nil
}

// add indexes an agent. Callers hold mu.
func (r *Roster) add(a store.Agent) {
	if old, ok := r.by[a.ID]; ok { // it joined again, with another host key
		delete(r.keys, string(old.HostKey))
		delete(r.seen, evidenceOf(old))
		r.count(old, -1)
		a.Banned, a.BanReason = a.Banned || old.Banned, cmp.Or(a.BanReason, old.BanReason) // joining lifts no ban
	}
	r.by[a.ID], r.keys[string(a.HostKey)] = a, a.ID
	if a.Evidence != nil {
		r.seen[evidenceOf(a)] = a.ID
	}
	r.count(a, 1)
	if a.Group == "" {
		r.at[a.ID] = r.cfg.Place(a.Selectors)
	}
}

// count counts an agent among those of its principal. Callers hold mu.
func (r *Roster) count(a store.Agent, d int) {
	principal := r.cfg.Principal(a.Method, a.Selectors)
	if principal == "" || a.Banned {
		return
	}
	if r.joinedBy[principal] += d; r.joinedBy[principal] == 0 {
		delete(r.joinedBy, principal)
	}
}

// PlaceAgain places the agents anew that selectors place, and reports whether the group of any
// has changed.
func (r *Roster) PlaceAgain() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	moved := false
	for id, before := range r.at {
		if now := r.cfg.Place(r.by[id].Selectors); now != before {
			r.at[id], moved = now, true
		}
	}
	if moved {
		r.n++
	}
	return moved
}

// Enrol stores an agent that joins.
func (r *Roster) Enrol(ctx context.Context, a store.Agent) error {
	r.following.Lock()
	defer r.following.Unlock()
	before, _ := r.cfg.Store.Joined()
	if err := r.cfg.Store.PutAgent(ctx, a); err != nil {
		return err
	}
	r.put(a)
	if after, _ := r.cfg.Store.Joined(); after == before+1 { // no other agent joined meanwhile
		r.joined.CompareAndSwap(before, after)
	}
	return nil
}

func (r *Roster) put(a store.Agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(a)
	r.n++
}

// BySelectors lists, by id, the agents that selectors place.
func (r *Roster) BySelectors() []store.Agent {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]store.Agent, 0, len(r.at))
	for _, id := range slices.Sorted(maps.Keys(r.at)) {
		list = append(list, r.placed(id))
	}
	return list
}

// ByToken lists, by id, the agents whose token named their group.
func (r *Roster) ByToken() []store.Agent {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []store.Agent
	for _, id := range slices.Sorted(maps.Keys(r.by)) {
		if a := r.by[id]; a.Group != "" {
			list = append(list, a)
		}
	}
	return list
}

// ByEvidence finds the agent, banned or not, that joined by this evidence.
func (r *Roster) ByEvidence(method string, key []byte) (store.Agent, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	id, ok := r.seen[evidence{method, string(key)}]
	return r.placed(id), ok
}

// placed returns an agent with its group. Callers hold mu.
func (r *Roster) placed(id string) store.Agent {
	a := r.by[id]
	if a.Group == "" {
		a.Group = r.at[id]
	}
	return a
}

// OfKey finds the agent that joined with this host key, banned or not. It only reads memory, so
// strangers may cause it.
func (r *Roster) OfKey(hostKey []byte) (id string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	id, ok = r.keys[string(hostKey)]
	return id, ok
}

// ServesKey finds the agent that joined with this host key, where it is to be served.
func (r *Roster) ServesKey(hostKey []byte) (store.Agent, bool) {
	id, ok := r.OfKey(hostKey)
	if !ok {
		return store.Agent{}, false
	}
	a, err := r.Standing(id)
	return a, err == nil
}

// Get finds an agent, banned or not.
func (r *Roster) Get(id string) (store.Agent, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.by[id]
	return r.placed(id), ok
}

// Standing finds an agent that is to be served: one that joined, by what is taken still, and is
// not banned.
func (r *Roster) Standing(id string) (store.Agent, error) {
	a, ok := r.Get(id)
	if !ok {
		return a, fault.New(fault.Identity, "agent %s is not known here; join again with a new token, or by evidence of its own", id)
	}
	if a.Banned {
		return a, ErrBanned(id)
	}
	if err := r.cfg.Takes(a.Method, a.Selectors); err != nil {
		return a, fault.New(fault.Denied, "agent %s is not served any more: %v", id, err)
	}
	return a, nil
}

// ErrBanned returns the error by which a banned agent ends itself (api.Banned). A session, or a
// host key that has joined, gets the code of it where an agent has no standing any more, and for
// no other reason.
func ErrBanned(id string) error {
	return fault.New(fault.Denied, "agent %s is banned; its host can only join as a new agent, with a new token or a certificate for another key; a task, as a new task", id)
}

// All lists the agents by id.
func (r *Roster) All() []store.Agent {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]store.Agent, 0, len(r.by))
	for _, id := range slices.Sorted(maps.Keys(r.by)) {
		list = append(list, r.placed(id))
	}
	return list
}
