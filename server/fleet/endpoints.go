package fleet

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
	"signet.example/internal/plain"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// Endpoint is one proxy of one virtual node as its agent reported it.
type Endpoint struct {
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

// Ref is the virtual node.
func (e *Endpoint) Ref() proxy.Ref { return proxy.Node(e.Mesh, e.Node) }

func (e *Endpoint) key() string { return e.Agent + "\x00" + e.Proxy }

func (e *Endpoint) sameNode(mesh, node string) bool { return e.Mesh == mesh && e.Node == node }

// claim is one port of one address. It is one proxy's; those of another agent may
// be there for the same virtual node, since a host that joined anew is one.
type claim struct {
	address string
	port    uint32
}

// claims is who is on what.
type claims map[claim][]*Endpoint

func (c claims) add(n *Endpoint) {
	for _, p := range n.Ports {
		at := claim{n.Address, p}
		c[at] = append(c[at], n)
	}
}

func (c claims) remove(n *Endpoint) {
	for _, p := range n.Ports {
		at := claim{n.Address, p}
		if c[at] = slices.DeleteFunc(c[at], func(o *Endpoint) bool { return o == n }); len(c[at]) == 0 {
			delete(c, at)
		}
	}
}

// rival is who is where n wants to be: another virtual node, or another proxy of
// the same host, with which it would share the calls.
func (c claims) rival(n *Endpoint, counts func(*Endpoint) bool) *Endpoint {
	for _, p := range n.Ports {
		for _, o := range c[claim{n.Address, p}] {
			if o.key() != n.key() && (o.Agent == n.Agent || !o.sameNode(n.Mesh, n.Node)) && counts(o) {
				return o
			}
		}
	}
	return nil
}

// Conflict is an endpoint that is reported and not served: why, and what mends it.
type Conflict struct {
	Endpoint    Endpoint
	Reason, Fix string
}

// refusal is why an endpoint is not served, and what mends it.
type refusal struct{ Reason, Fix string }

// OtherBind mends two proxies in one place.
const OtherBind = "give one of the two another bind in its agent's configuration, and reload that (SIGHUP)"

// saveEvery is how often the registry is written at most.
const saveEvery = time.Second

// Endpoints is the registry of D19: where the proxies of each virtual node listen.
// It is kept in a file beside the store, so that a server that restarts serves
// what it served until the agents are back: withdrawing a healthy endpoint because
// the control plane restarted would be an outage made by us. The file is a cache:
// lost, the agents' first reports rebuild it; after a crash it may lack the last
// second.
//
// What a report costs is what it says, not how many others there are, and nothing
// is done while nobody reports and nothing is due (docs/decisions/034).
//
// mu is held while Hosts is asked, so whatever locks that takes come after mu.
type Endpoints struct {
	cfg  EndpointsConfig
	wake watched.Signal // wakes run: there is something to save, or a grace began

	mu        sync.Mutex                      // guards the following five and now
	agents    map[string]map[string]*Endpoint // by agent and proxy; an endpoint is replaced, not changed
	on        claims
	leaving   []*Endpoint           // those whose grace runs, in the order of its end; some are back since
	pruneAt   int                   // length of leaving at which those that are back are left out
	conflicts map[string][]Conflict // by agent
	now       *Registered           // the same by virtual node: another one with each change
	saved     *Registered           // what the file has; run's alone
}

// Hosts says which agents may host which virtual nodes now. It is asked under a lock of
// Endpoints, from many goroutines.
type Hosts interface {
	// MayHost reports whether an agent is to be served and its group is bound to the node.
	MayHost(agent string, node proxy.Ref) bool
}

// EndpointsConfig is what Endpoints have of the server.
type EndpointsConfig struct {
	Path    string        // of the file
	Grace   time.Duration // for how long the endpoints of an agent stay that went away
	Hosts   Hosts
	Clock   func() time.Time
	Changed func() // is called after each change, and must not wait
	Log     *slog.Logger
}

// OpenEndpoints reads what the last run knew. All of it counts as gone from now:
// an agent has the grace period to come back and say it again.
func OpenEndpoints(cfg EndpointsConfig) (*Endpoints, error) {
	e := &Endpoints{
		cfg: cfg, wake: watched.NewSignal(),
		agents: map[string]map[string]*Endpoint{}, on: claims{}, conflicts: map[string][]Conflict{}, now: &Registered{},
	}
	e.saved = e.now
	b, err := os.ReadFile(cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	var list []*Endpoint
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return e, fmt.Errorf("last known endpoints: %w", err)
	}
	for _, p := range list {
		if p != nil {
			p.Gone = cfg.Clock()
			e.put(p)
			e.leaving = append(e.leaving, p)
		}
	}
	e.saved = e.now
	return e, nil
}

// put registers n in place of what its proxy was. Callers of this and of drop
// hold the lock.
func (e *Endpoints) put(n *Endpoint) {
	e.drop(e.of(n))
	if e.agents[n.Agent] == nil {
		e.agents[n.Agent] = map[string]*Endpoint{}
	}
	e.agents[n.Agent][n.Proxy] = n
	e.on.add(n)
	e.now = e.now.with(n)
}

// drop takes away an endpoint that is registered, or nil.
func (e *Endpoints) drop(n *Endpoint) {
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
func (e *Endpoints) of(n *Endpoint) *Endpoint { return e.agents[n.Agent][n.Proxy] }

// Report takes the proxies of a connected agent (Reports).
func (e *Endpoints) Report(p Peer, r *api.Report) (unserved map[string]string) {
	e.mu.Lock()
	before := e.now
	in := &reported{Endpoints: e, peer: p, stays: map[string]*api.VirtualNodeRef{}, taken: claims{}}
	for _, s := range r.GetProxies() {
		in.stays[s.GetName()] = s.GetVirtualNode()
	}
	names := map[string]bool{}
	var accepted []*Endpoint
	var refused []Conflict
	for _, s := range r.GetProxies() {
		n, why := in.accept(s)
		if n == nil {
			continue
		}
		if names[n.Proxy] {
			why = &refusal{"reported twice", OtherBind}
		}
		names[n.Proxy] = true
		if why != nil {
			refused = append(refused, Conflict{*n, why.Reason, why.Fix})
			continue
		}
		in.taken.add(n)
		accepted = append(accepted, n)
	}
	e.replace(p.Agent.ID, accepted)
	if e.conflicts[p.Agent.ID] = refused; len(refused) == 0 {
		delete(e.conflicts, p.Agent.ID)
	}
	unserved = reasons(refused)
	e.finish(before)
	return unserved
}

// replace makes these, and no others, the endpoints of an agent.
func (e *Endpoints) replace(agent string, with []*Endpoint) {
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
func (n *Endpoint) same(o *Endpoint) bool {
	return n.serves(o) && n.sameNode(o.Mesh, o.Node) && n.Gone.IsZero() == o.Gone.IsZero()
}

// serves reports whether callers of n are told what callers of o are.
func (n *Endpoint) serves(o *Endpoint) bool {
	return n.Address == o.Address && n.Healthy == o.Healthy && slices.Equal(n.Ports, o.Ports)
}

// reported is one report that is being taken.
type reported struct {
	*Endpoints
	peer  Peer
	stays map[string]*api.VirtualNodeRef // what the report says of each proxy
	taken claims                         // what it took so far
}

// rival is who is where n wants to be. All that is registered counts, except of the
// agent's own only what it goes on to report as the same.
func (in *reported) rival(n *Endpoint) *Endpoint {
	everyone := func(*Endpoint) bool { return true }
	if o := in.taken.rival(n, everyone); o != nil {
		return o
	}
	return in.on.rival(n, func(o *Endpoint) bool {
		at, ok := in.stays[o.Proxy]
		return o.Agent != n.Agent || ok && o.sameNode(at.GetMesh(), at.GetName())
	})
}

// accept turns a report of one proxy into an endpoint; a reason says that it is
// not served, nil that there is nothing to serve yet or any more.
func (in *reported) accept(p *api.ProxyStatus) (*Endpoint, *refusal) {
	n := &Endpoint{
		Agent: in.peer.Agent.ID, Proxy: p.GetName(), Mesh: p.GetVirtualNode().GetMesh(), Node: p.GetVirtualNode().GetName(),
		Address: p.GetAddress(), Ports: slices.Sorted(slices.Values(p.GetPorts())),
		Healthy: p.GetState() == api.ProxyStatus_READY && p.GetHealthy(), Since: in.cfg.Clock(),
	}
	if old := in.of(n); old != nil && old.sameNode(n.Mesh, n.Node) {
		n.Since = old.Since
	} else if p.GetState() != api.ProxyStatus_READY {
		return nil, nil // it never listened: nobody should wait for it
	}
	if p.GetState() == api.ProxyStatus_DRAINING || len(n.Ports) == 0 {
		return nil, nil
	}
	if !in.cfg.Hosts.MayHost(n.Agent, n.Ref()) {
		return n, &refusal{
			fmt.Sprintf("virtual node %s/%s is not bound to group %q of this agent", n.Mesh, n.Node, in.peer.Agent.Group),
			fmt.Sprintf("signet apply -f <file with a Binding of group %s, mesh %s and virtualNode %s>", in.peer.Agent.Group, n.Mesh, n.Node),
		}
	}
	a, err := netip.ParseAddr(n.Address)
	a = a.Unmap().WithZone("")
	if err != nil || !addressOfAgent(a, in.peer.Remote) {
		return n, &refusal{
			fmt.Sprintf("address %q is not the agent's own (it connects from %s)", plain.Text(n.Address), in.peer.Remote),
			fmt.Sprintf("set bind of this proxy to %s in the agent's configuration, and reload that (SIGHUP): callers are sent to the address from which the agent connects, and to no other", in.peer.Remote),
		}
	}
	n.Address = a.String()
	if slices.ContainsFunc(n.Ports, func(p uint32) bool { return p == 0 || p > 65535 }) {
		return n, &refusal{"port out of range", "signet get virtualnode " + plain.Text(n.Node) + " -o yaml"}
	}
	if o := in.rival(n); o != nil {
		return n, &refusal{fmt.Sprintf("%s is taken by proxy %s for %s/%s of agent %s since %s",
			n.Address, o.Proxy, o.Mesh, o.Node, o.Agent, o.Since.UTC().Format(time.RFC3339)), OtherBind}
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

// Left starts the grace period of an agent's endpoints (Reports).
func (e *Endpoints) Left(agent string) {
	e.mu.Lock()
	before := e.now
	for _, n := range slices.Collect(maps.Values(e.agents[agent])) {
		if n.Gone.IsZero() {
			gone := *n
			gone.Gone = e.cfg.Clock()
			e.put(&gone)
			e.leaving = append(e.leaving, &gone)
		}
	}
	delete(e.conflicts, agent)
	if len(e.leaving) > e.pruneAt { // an agent that comes and goes adds some each time
		e.leaving = slices.DeleteFunc(e.leaving, func(n *Endpoint) bool { return e.of(n) != n })
		e.pruneAt = max(1024, 2*len(e.leaving))
	}
	e.finish(before)
}

// finish unlocks, and announces what has changed.
func (e *Endpoints) finish(before *Registered) {
	same := e.now == before
	e.mu.Unlock()
	if !same {
		e.cfg.Changed()
		e.wake.Wake()
	}
}

// Snapshot is the picture of now. Callers hold no lock.
func (e *Endpoints) Snapshot() *Registered {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

// Refused lists the endpoints that are reported and not served.
func (e *Endpoints) Refused() []Conflict {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Conflict
	for _, k := range slices.Sorted(maps.Keys(e.conflicts)) {
		list = append(list, e.conflicts[k]...)
	}
	return list
}

// Unserved are the proxies of an agent to which no caller is sent, and why.
func (e *Endpoints) Unserved(agent string) map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return reasons(e.conflicts[agent])
}

// reasons are those of conflicts of one agent, by the names of its proxies.
func reasons(list []Conflict) map[string]string {
	by := map[string]string{}
	for _, c := range list {
		by[c.Endpoint.Proxy] = c.Reason
	}
	return by
}

// Count is the number of endpoints that are served.
func (e *Endpoints) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, own := range e.agents {
		n += len(own)
	}
	return n
}
