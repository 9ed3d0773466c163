package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"signet.example/api"
	"signet.example/internal/watched"
)

// Proxy states in which an endpoint is offered, or kept (agent.proto).
// endpoint is one proxy of one virtual node as its agent reported it.
type endpoint struct {
	Agent   string    `json:"agent"`
	Proxy   string    `json:"proxy"`
	Mesh    string    `json:"mesh"`
	Node    string    `json:"node"`
	Address string    `json:"address"`
	Ports   []uint32  `json:"ports"`
	Healthy bool      `json:"healthy"`
	Since   time.Time `json:"since"`
	// Gone is when its agent went away; zero while it is connected.
	Gone time.Time `json:"gone"`
}

func (e *endpoint) key() string { return e.Agent + "\x00" + e.Proxy }

func (e *endpoint) sameNode(mesh, node string) bool { return e.Mesh == mesh && e.Node == node }

// claim is one port of one address. It is one proxy's; those of another agent may
// be there for the same virtual node, since a host that joined anew is one.
type claim struct {
	address string
	port    uint32
}

// claims is who is on what.
type claims map[claim][]*endpoint

func (c claims) add(n *endpoint) {
	for _, p := range n.Ports {
		at := claim{n.Address, p}
		c[at] = append(c[at], n)
	}
}

func (c claims) remove(n *endpoint) {
	for _, p := range n.Ports {
		at := claim{n.Address, p}
		if c[at] = slices.DeleteFunc(c[at], func(o *endpoint) bool { return o == n }); len(c[at]) == 0 {
			delete(c, at)
		}
	}
}

// rival is who is where n wants to be: another virtual node, or another proxy of
// the same host, with which it would share the calls.
func (c claims) rival(n *endpoint, counts func(*endpoint) bool) *endpoint {
	for _, p := range n.Ports {
		for _, o := range c[claim{n.Address, p}] {
			if o.key() != n.key() && (o.Agent == n.Agent || !o.sameNode(n.Mesh, n.Node)) && counts(o) {
				return o
			}
		}
	}
	return nil
}

// conflict is an endpoint that is reported and not served.
type conflict struct {
	endpoint endpoint
	refusal
}

// refusal is why an endpoint is not served, and what mends it.
type refusal struct{ reason, fix string }

// otherBind mends two proxies in one place.
const otherBind = "give one of the two another bind in its agent's configuration, and reload that (SIGHUP)"

// saveEvery is how often the registry is written at most.
const saveEvery = time.Second

// endpoints is the registry of D19: where the proxies of each virtual node listen.
// It is kept in a file beside the store, so that a server that restarts serves
// what it served until the agents are back: withdrawing a healthy endpoint because
// the control plane restarted would be an outage made by us. The file is a cache:
// lost, the agents' first reports rebuild it; after a crash it may lack the last
// second.
//
// What a report costs is what it says, not how many others there are, and nothing
// is done while nobody reports and nothing is due (docs/decisions/034).
type endpoints struct {
	path    string
	grace   time.Duration
	clock   func() time.Time
	changed func()
	log     *slog.Logger
	wake    watched.Signal // wakes run: there is something to save, or a grace began

	mu        sync.Mutex                      // guards the following five and now
	agents    map[string]map[string]*endpoint // by agent and proxy; an endpoint is replaced, not changed
	on        claims
	leaving   []*endpoint           // those whose grace runs, in the order of its end; some are back since
	pruneAt   int                   // length of leaving at which those that are back are left out
	conflicts map[string][]conflict // by agent
	now       *registered           // the same by virtual node: another one with each change
	saved     *registered           // what the file has; run's alone
}

// openEndpoints reads what the last run knew. All of it counts as gone from now:
// an agent has the grace period to come back and say it again.
func openEndpoints(path string, grace time.Duration, clock func() time.Time, changed func(), log *slog.Logger) (*endpoints, error) {
	e := &endpoints{
		path: path, grace: grace, clock: clock, changed: changed, log: log, wake: watched.NewSignal(),
		agents: map[string]map[string]*endpoint{}, on: claims{}, conflicts: map[string][]conflict{}, now: &registered{},
	}
	e.saved = e.now
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	var list []*endpoint
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return e, fmt.Errorf("last known endpoints: %w", err)
	}
	for _, p := range list {
		if p != nil {
			p.Gone = clock()
			e.put(p)
			e.leaving = append(e.leaving, p)
		}
	}
	e.saved = e.now
	return e, nil
}

// put registers n in place of what its proxy was. Callers of this and of drop
// hold the lock.
func (e *endpoints) put(n *endpoint) {
	e.drop(e.of(n))
	if e.agents[n.Agent] == nil {
		e.agents[n.Agent] = map[string]*endpoint{}
	}
	e.agents[n.Agent][n.Proxy] = n
	e.on.add(n)
	e.now = e.now.with(n)
}

// drop takes away an endpoint that is registered, or nil.
func (e *endpoints) drop(n *endpoint) {
	if n == nil {
		return
	}
	if delete(e.agents[n.Agent], n.Proxy); len(e.agents[n.Agent]) == 0 {
		delete(e.agents, n.Agent)
	}
	e.on.remove(n)
	e.now = e.now.without(n)
}

// of is what is registered for the proxy of n, nil if nothing is.
func (e *endpoints) of(n *endpoint) *endpoint { return e.agents[n.Agent][n.Proxy] }

// report takes the proxies of a connected agent. bound says whether a virtual
// node is bound to the agent's group.
func (e *endpoints) report(c *caller, r *api.Report, bound func(mesh, node string) bool) {
	e.mu.Lock()
	before := e.now
	in := &reported{endpoints: e, caller: c, bound: bound, stays: map[string]*api.VirtualNodeRef{}, taken: claims{}}
	for _, p := range r.GetProxies() {
		in.stays[p.GetName()] = p.GetVirtualNode()
	}
	names := map[string]bool{}
	var accepted []*endpoint
	var refused []conflict
	for _, p := range r.GetProxies() {
		n, why := in.accept(p)
		if n == nil {
			continue
		}
		if names[n.Proxy] {
			why = &refusal{"reported twice", otherBind}
		}
		names[n.Proxy] = true
		if why != nil {
			refused = append(refused, conflict{*n, *why})
			continue
		}
		in.taken.add(n)
		accepted = append(accepted, n)
	}
	e.replace(c.agent.ID, accepted)
	if e.conflicts[c.agent.ID] = refused; len(refused) == 0 {
		delete(e.conflicts, c.agent.ID)
	}
	e.finish(before)
}

// replace makes these, and no others, the endpoints of an agent.
func (e *endpoints) replace(agent string, with []*endpoint) {
	stays := map[string]bool{}
	for _, n := range with {
		stays[n.Proxy] = true
		if old := e.of(n); old == nil || !old.same(n) {
			e.put(n)
		}
	}
	for _, n := range slices.Collect(maps.Values(e.agents[agent])) {
		if !stays[n.Proxy] {
			e.drop(n)
		}
	}
}

// same reports whether o is registered as n is.
func (n *endpoint) same(o *endpoint) bool {
	return n.serves(o) && n.sameNode(o.Mesh, o.Node) && n.Gone.IsZero() == o.Gone.IsZero()
}

// serves reports whether callers of n are told what callers of o are.
func (n *endpoint) serves(o *endpoint) bool {
	return n.Address == o.Address && n.Healthy == o.Healthy && slices.Equal(n.Ports, o.Ports)
}

// reported is one report that is being taken.
type reported struct {
	*endpoints
	caller *caller
	bound  func(mesh, node string) bool
	stays  map[string]*api.VirtualNodeRef // what the report says of each proxy
	taken  claims                         // what it took so far
}

// rival is who is where n wants to be. All that is registered counts, except of the
// agent's own only what it goes on to report as the same.
func (in *reported) rival(n *endpoint) *endpoint {
	everyone := func(*endpoint) bool { return true }
	if o := in.taken.rival(n, everyone); o != nil {
		return o
	}
	return in.on.rival(n, func(o *endpoint) bool {
		at, ok := in.stays[o.Proxy]
		return o.Agent != n.Agent || ok && o.sameNode(at.GetMesh(), at.GetName())
	})
}

// accept turns a report of one proxy into an endpoint; a reason says that it is
// not served, nil that there is nothing to serve yet or any more.
func (in *reported) accept(p *api.ProxyStatus) (*endpoint, *refusal) {
	c := in.caller
	n := &endpoint{
		Agent: c.agent.ID, Proxy: p.GetName(), Mesh: p.GetVirtualNode().GetMesh(), Node: p.GetVirtualNode().GetName(),
		Address: p.GetAddress(), Ports: slices.Sorted(slices.Values(p.GetPorts())),
		Healthy: p.GetState() == api.ProxyStatus_READY && p.GetHealthy(), Since: in.clock(),
	}
	if old := in.of(n); old != nil && old.sameNode(n.Mesh, n.Node) {
		n.Since = old.Since
	} else if p.GetState() != api.ProxyStatus_READY {
		return nil, nil // it never listened: nobody should wait for it
	}
	if p.GetState() == api.ProxyStatus_DRAINING || len(n.Ports) == 0 {
		return nil, nil
	}
	if !in.bound(n.Mesh, n.Node) {
		return n, &refusal{
			fmt.Sprintf("virtual node %s/%s is not bound to group %q of this agent", n.Mesh, n.Node, c.agent.Group),
			fmt.Sprintf("signet apply -f <file with a Binding of group %s, mesh %s and virtualNode %s>", c.agent.Group, n.Mesh, n.Node),
		}
	}
	a, err := parseAddr(n.Address)
	if err != nil || !addressOfAgent(a, c.remote) {
		return n, &refusal{
			fmt.Sprintf("address %q is not the agent's own (it connects from %s)", plainText(n.Address), c.remote),
			fmt.Sprintf("set bind of this proxy to %s in the agent's configuration, and reload that (SIGHUP): callers are sent to the address from which the agent connects, and to no other", c.remote),
		}
	}
	n.Address = a.String()
	if slices.ContainsFunc(n.Ports, func(p uint32) bool { return p == 0 || p > 65535 }) {
		return n, &refusal{"port out of range", "signet get virtualnode " + plainText(n.Node) + " -o yaml"}
	}
	if o := in.rival(n); o != nil {
		return n, &refusal{fmt.Sprintf("%s is taken by proxy %s for %s/%s of agent %s since %s",
			n.Address, o.Proxy, o.Mesh, o.Node, o.Agent, o.Since.UTC().Format(time.RFC3339)), otherBind}
	}
	return n, nil
}

// addressOfAgent: the connection's own address, or loopback when the agent is on
// this machine. Nothing else is attested for it.
func addressOfAgent(a, remote netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	return a == remote || a.IsLoopback() && remote.IsLoopback()
}

// leave starts the grace period of an agent's endpoints.
func (e *endpoints) leave(agent string) {
	e.mu.Lock()
	before := e.now
	for _, n := range slices.Collect(maps.Values(e.agents[agent])) {
		if n.Gone.IsZero() {
			gone := *n
			gone.Gone = e.clock()
			e.put(&gone)
			e.leaving = append(e.leaving, &gone)
		}
	}
	delete(e.conflicts, agent)
	if len(e.leaving) > e.pruneAt { // an agent that comes and goes adds some each time
		e.leaving = slices.DeleteFunc(e.leaving, func(n *endpoint) bool { return e.of(n) != n })
		e.pruneAt = max(1024, 2*len(e.leaving))
	}
	e.finish(before)
}

// finish unlocks, and announces what has changed.
func (e *endpoints) finish(before *registered) {
	same := e.now == before
	e.mu.Unlock()
	if !same {
		e.changed()
		e.wake.Wake()
	}
}

// snapshot is the picture of now. Callers hold no lock.
func (e *endpoints) snapshot() *registered {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

// refused lists the endpoints that are reported and not served.
func (e *endpoints) refused() []conflict {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []conflict
	for _, k := range sortedKeys(e.conflicts) {
		list = append(list, e.conflicts[k]...)
	}
	return list
}

// unserved are the proxies of an agent to which no caller is sent, and why.
func (e *endpoints) unserved(agent string) map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	reasons := map[string]string{}
	for _, c := range e.conflicts[agent] {
		reasons[c.endpoint.Proxy] = c.reason
	}
	return reasons
}

// count is the number of endpoints that are served.
func (e *endpoints) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, own := range e.agents {
		n += len(own)
	}
	return n
}
