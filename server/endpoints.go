package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"signet.example/api"
	"signet.example/xds"
)

// Proxy states in which an endpoint is offered, or kept (agent.proto).
const (
	stateReady    = "ready"
	stateDraining = "draining"
	stateUnserved = "unserved" // by the server alone: it runs, and no caller is sent to it
)

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

// claims is who is on what, for the time of one report.
type claims map[claim]*endpoint

func (c claims) add(n *endpoint) {
	for _, p := range n.Ports {
		c[claim{n.Address, p}] = n
	}
}

// rival is who is where n wants to be: another virtual node, or another proxy of
// the same host, with which it would share the calls.
func (c claims) rival(n *endpoint) *endpoint {
	for _, p := range n.Ports {
		if o := c[claim{n.Address, p}]; o != nil && o.key() != n.key() && (o.Agent == n.Agent || !o.sameNode(n.Mesh, n.Node)) {
			return o
		}
	}
	return nil
}

// conflict is an endpoint that is reported and not served.
type conflict struct {
	endpoint endpoint
	refusal
}

// refusal says why an endpoint is not served, and what mends it.
type refusal struct{ reason, fix string }

// otherBind mends two proxies in one place.
const otherBind = "give one of the two another bind in its agent's configuration, and reload that (SIGHUP)"

// endpoints is the registry of D19: where the proxies of each virtual node listen.
// It is kept in a file beside the store, so that a server that restarts serves
// what it served until the agents are back: withdrawing a healthy endpoint because
// the control plane restarted would be an outage made by us. The file is a cache:
// lost, the agents' first reports rebuild it.
type endpoints struct {
	path    string
	grace   time.Duration
	clock   func() time.Time
	changed func()

	saving    sync.Mutex
	mu        sync.Mutex
	by        map[string]*endpoint
	conflicts map[string][]conflict // by agent
	picture   *registered           // nil: not made since the last change
}

// openEndpoints reads what the last run knew. All of it counts as gone from now:
// an agent has the grace period to come back and say it again.
func openEndpoints(path string, grace time.Duration, clock func() time.Time, changed func()) (*endpoints, error) {
	e := &endpoints{
		path: path, grace: grace, clock: clock, changed: changed,
		by: map[string]*endpoint{}, conflicts: map[string][]conflict{},
	}
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
			e.by[p.key()] = p
		}
	}
	return e, nil
}

// report takes the proxies of a connected agent. bound says whether a virtual
// node is bound to the agent's group.
func (e *endpoints) report(c *caller, r *api.Report, bound func(mesh, node string) bool) error {
	e.mu.Lock()
	before := e.print()
	seen, names := map[string]bool{}, map[string]bool{}
	taken := e.claims(c.agent.ID, r)
	var refused []conflict
	for _, p := range r.GetProxies() {
		n, why := e.accept(c, p, bound, taken)
		if n == nil {
			continue
		}
		if names[n.key()] {
			why = &refusal{"reported twice", otherBind}
		}
		names[n.key()] = true
		if why != nil {
			refused = append(refused, conflict{*n, *why})
			continue
		}
		seen[n.key()] = true
		e.by[n.key()] = n
		taken.add(n)
	}
	for k, n := range e.by {
		if n.Agent == c.agent.ID && !seen[k] {
			delete(e.by, k)
		}
	}
	e.conflicts[c.agent.ID] = refused
	return e.finish(before)
}

// claims is what is taken when an agent reports: all that is served, but of its
// own only what it goes on to report as the same.
func (e *endpoints) claims(agent string, r *api.Report) claims {
	same := map[string]*api.VirtualNodeRef{}
	for _, p := range r.GetProxies() {
		same[p.GetName()] = p.GetVirtualNode()
	}
	taken := claims{}
	for _, n := range e.by {
		if v, ok := same[n.Proxy]; n.Agent != agent || ok && n.sameNode(v.GetMesh(), v.GetName()) {
			taken.add(n)
		}
	}
	return taken
}

// accept turns a report of one proxy into an endpoint; a reason says that it is
// not served, nil that there is nothing to serve yet or any more.
func (e *endpoints) accept(c *caller, p *api.ProxyStatus, bound func(mesh, node string) bool, taken claims) (*endpoint, *refusal) {
	n := &endpoint{
		Agent: c.agent.ID, Proxy: p.GetName(), Mesh: p.GetVirtualNode().GetMesh(), Node: p.GetVirtualNode().GetName(),
		Address: p.GetAddress(), Ports: slices.Sorted(slices.Values(p.GetPorts())),
		Healthy: p.GetState() == stateReady && p.GetHealthy(), Since: e.clock(),
	}
	if old := e.by[n.key()]; old != nil && old.sameNode(n.Mesh, n.Node) {
		n.Since = old.Since
	} else if p.GetState() != stateReady {
		return nil, nil // it never listened: nobody should wait for it
	}
	if p.GetState() == stateDraining || len(n.Ports) == 0 {
		return nil, nil
	}
	if !bound(n.Mesh, n.Node) {
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
	if o := taken.rival(n); o != nil {
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
func (e *endpoints) leave(agent string) error {
	e.mu.Lock()
	before := e.print()
	for _, n := range e.by {
		if n.Agent == agent && n.Gone.IsZero() {
			n.Gone = e.clock()
		}
	}
	delete(e.conflicts, agent)
	return e.finish(before)
}

// sweep drops the endpoints whose grace is over and those that keep refuses (the
// binding is gone, the agent is banned).
func (e *endpoints) sweep(keep func(*endpoint) bool) error {
	e.mu.Lock()
	before := e.print()
	for k, n := range e.by {
		if (!n.Gone.IsZero() && e.clock().Sub(n.Gone) >= e.grace) || !keep(n) {
			delete(e.by, k)
		}
	}
	return e.finish(before)
}

// print is what is served, to see whether it changed. Callers hold the lock.
func (e *endpoints) print() string {
	var b strings.Builder
	for _, k := range sortedKeys(e.by) {
		n := e.by[k]
		fmt.Fprintf(&b, "%s %s %s %s %v %v %v\n", k, n.Mesh, n.Node, n.Address, n.Ports, n.Healthy, n.Gone.IsZero())
	}
	return b.String()
}

// finish unlocks, and announces and saves when something changed.
func (e *endpoints) finish(before string) error {
	same := e.print() == before
	if !same {
		e.picture = nil
	}
	e.mu.Unlock()
	if same {
		return nil
	}
	e.changed()
	e.saving.Lock() // the last to save is the last to look
	defer e.saving.Unlock()
	e.mu.Lock()
	list := make([]endpoint, 0, len(e.by))
	for _, k := range sortedKeys(e.by) {
		list = append(list, *e.by[k])
	}
	e.mu.Unlock()
	if err := writeJSON(e.path, list); err != nil {
		return fmt.Errorf("remember endpoints: %w", err)
	}
	return nil
}

// registered is an immutable picture for building views: what is registered, by
// virtual node. Another picture is another pointer.
type registered struct{ by map[nodeRef][]endpoint }

// snapshot is the picture of now. Callers hold no lock.
func (e *endpoints) snapshot() *registered {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.picture == nil {
		e.picture = &registered{map[nodeRef][]endpoint{}}
		for _, k := range sortedKeys(e.by) {
			n := e.by[k]
			at := nodeRef{n.Mesh, n.Node}
			e.picture.by[at] = append(e.picture.by[at], *n)
		}
	}
	return e.picture
}

// at is what is registered for a port. A node that has proxies but none on the
// port has an empty list there, not nil: its cluster stays EDS.
func (r *registered) at(mesh, node string, port uint32) []xds.Endpoint {
	known := r.by[nodeRef{mesh, node}]
	if known == nil {
		return nil
	}
	list := []xds.Endpoint{}
	for i := range known {
		if slices.Contains(known[i].Ports, port) {
			list = append(list, xds.Endpoint{Address: known[i].Address, Port: port, Healthy: known[i].Healthy})
		}
	}
	return list
}

// differ lists the virtual nodes of which callers are told something else.
func (r *registered) differ(from *registered) []nodeRef {
	if r == from {
		return nil
	}
	same := func(a, b endpoint) bool {
		return a.Address == b.Address && a.Healthy == b.Healthy && slices.Equal(a.Ports, b.Ports)
	}
	var list []nodeRef
	for at, now := range r.by {
		if !slices.EqualFunc(now, from.by[at], same) {
			list = append(list, at)
		}
	}
	for at := range from.by {
		if r.by[at] == nil {
			list = append(list, at)
		}
	}
	return list
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
	return len(e.by)
}
