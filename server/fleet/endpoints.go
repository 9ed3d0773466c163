package fleet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/shared"
)

// Conflict is an endpoint that is reported and not served: why, and what mends it.
type Conflict struct {
	Endpoint    Endpoint
	Reason, Fix string
}

// refusal is why an endpoint is not served, and what mends it.
type refusal struct{ reason, fix string }

// OtherBind mends two proxies in one place. A host is served at the address of its agent
// alone, unless its group has ranges: another bind by itself may lead to no caller.
const OtherBind = "give one of the two another bind in its agent's configuration that addresses of the NodeGroup has, and reload that (SIGHUP); or its virtual node another portMapping.port; or run it on another host; where it is the application's address, give it another app"

// Endpoints are the rules of the registry of D19: where the proxies of each virtual node
// listen. What is registered, and what is refused, is Known; here is who may be, and for
// how long.
//
// What a report costs is what it says, not how many others there are, and nothing
// is done while nobody reports and nothing is due (docs/decisions/034).
//
// Hosts is asked within an Update of what is shared, so whatever locks that takes come
// after those of Shared.
type Endpoints struct{ cfg EndpointsConfig }

// Hosts says which agents may host which virtual nodes now. It is asked under a lock of
// Shared, from many goroutines.
type Hosts interface {
	// MayHost reports whether an agent is to be served and its group is bound to the node,
	// and which group that is now; "" where the agent has none, or is not to be served.
	MayHost(agent string, node proxy.Ref) (group string, ok bool)
	// MayListen reports whether an address is in a range of a group, whose hosts' proxies
	// may listen there although their agent connects from elsewhere.
	MayListen(group string, at netip.Addr) bool
}

// EndpointsConfig is what Endpoints have of the server.
type EndpointsConfig struct {
	Shared  shared.Value[*Known]
	Grace   time.Duration // for how long the endpoints of an agent stay that went away
	Hosts   Hosts
	Clock   func() time.Time
	Changed func() // is called by Run after each change, and must not wait
}

// NewEndpoints are over what is shared.
func NewEndpoints(cfg EndpointsConfig) *Endpoints { return &Endpoints{cfg: cfg} }

// Report takes the proxies of a connected agent, unless it has another session by now
// (Reports).
func (e *Endpoints) Report(p Peer, r *api.Report) (unserved map[string]string) {
	var refused []Conflict
	e.cfg.Shared.Update(func(now *Known) *Known {
		if now.sessionOf(p.Agent.ID) != p.session {
			refused = nil
			return now
		}
		in := &reported{now: now.endpoints(), cfg: e.cfg, peer: p, stays: map[string]proxy.Ref{}, taken: &Registered{}}
		var next *Registered
		next, refused = in.take(r)
		now = now.withEndpoints(next)
		for _, c := range in.displaced {
			if now.sessionOf(c.Endpoint.Agent) == "" { // nothing would end it: it goes with a session
				continue
			}
			list := now.refused.Get(ordered.String(c.Endpoint.Agent)).all()
			now = now.withRefused(c.Endpoint.Agent, append(slices.Clone(list), c))
		}
		if len(refused) > 0 || now.refused.Get(ordered.String(p.Agent.ID)) != nil {
			now = now.withRefused(p.Agent.ID, refused)
		}
		return now
	})
	return reasons(refused)
}

// reported is one report that is being taken.
type reported struct {
	now   *Registered
	cfg   EndpointsConfig
	peer  Peer
	stays map[string]proxy.Ref // what the report says of each proxy
	taken *Registered          // what it took so far
	// displaced are those that were where only a range let them be.
	displaced []Conflict
}

// take returns what is registered with the report, and what of it is not.
func (in *reported) take(r *api.Report) (next *Registered, refused []Conflict) {
	for _, p := range r.GetProxies() {
		in.stays[p.GetName()] = RefOf(p)
	}
	names := map[string]bool{}
	for _, p := range r.GetProxies() {
		n, why := in.accept(p)
		if n == nil {
			continue
		}
		if names[n.Proxy] {
			why = &refusal{"reported twice", OtherBind}
		}
		names[n.Proxy] = true
		if why != nil {
			refused = append(refused, Conflict{*n, why.reason, why.fix})
			continue
		}
		in.taken = in.taken.put(n)
	}
	if r.GetReturning() {
		in.keepForeign()
	}
	return in.now.replace(in.peer.Agent.ID, in.taken), refused
}

// keepForeign keeps those that the agent did not start, and that it has not seen since it
// began: they go on without it, and come back to it. An agent that says so for ever has no
// more of them for that than it may have of others.
func (in *reported) keepForeign() {
	for _, old := range in.now.OfAgent(in.peer.Agent.ID) {
		if _, said := in.stays[old.Proxy]; said || !old.Foreign {
			continue
		}
		n := *old
		if n.Healthy, n.Gone = false, (time.Time{}); in.rival(&n) == nil && in.crowd(&n) < mostOfOne {
			in.taken = in.taken.put(&n)
		}
	}
}

// RefOf is what a proxy runs for, as its agent says.
func RefOf(p *api.ProxyStatus) proxy.Ref {
	return proxy.For(p.GetVirtualNode().GetMesh(), p.GetVirtualNode().GetName(), p.GetVirtualNode().GetGateway())
}

// rival is who is where n wants to be. All that is registered counts, except of the
// agent's own only what it goes on to report as the same.
func (in *reported) rival(n *Endpoint) *Endpoint {
	if o := in.taken.rival(n, func(*Endpoint) bool { return true }); o != nil {
		return o
	}
	return in.now.rival(n, func(o *Endpoint) bool { return o.Agent != n.Agent || in.stay(o) })
}

// stay reports whether the agent goes on to report its endpoint o as the same.
func (in *reported) stay(o *Endpoint) bool {
	at, ok := in.stays[o.Proxy]
	return ok && o.Ref() == at
}

// mostOfOne are the proxies of one agent for one virtual node: callers choose from proxies, so
// that a host with a range of addresses could take nearly all calls.
const mostOfOne = 4

// crowd counts the agent's other proxies of n's virtual node.
func (in *reported) crowd(n *Endpoint) int {
	others := map[string]bool{}
	for _, o := range slices.Concat(in.taken.OfAgent(n.Agent), in.now.OfAgent(n.Agent)) {
		if o.Proxy != n.Proxy && o.Ref() == n.Ref() && (in.taken.of(o) == o || in.stay(o)) {
			others[o.Proxy] = true
		}
	}
	return len(others)
}

// accept turns a report of one proxy into an endpoint; a reason says that it is
// not served, nil that there is nothing to serve yet or any more.
func (in *reported) accept(p *api.ProxyStatus) (*Endpoint, *refusal) {
	n := &Endpoint{
		Agent: in.peer.Agent.ID, Proxy: p.GetName(), Mesh: p.GetVirtualNode().GetMesh(), Node: p.GetVirtualNode().GetName(), Gateway: p.GetVirtualNode().GetGateway(),
		Foreign: p.GetForeign(), Address: p.GetAddress(), Ports: slices.Sorted(slices.Values(p.GetPorts())),
		Healthy: p.GetState() == api.ProxyStatus_READY && p.GetHealthy(), Since: in.cfg.Clock(),
	}
	n.Failing = slices.DeleteFunc(slices.Clone(n.Ports), func(port uint32) bool { return !slices.Contains(p.GetFailing(), port) })
	if old := in.now.of(n); old != nil && old.Ref() == n.Ref() {
		n.Since = old.Since
	} else if p.GetState() != api.ProxyStatus_READY {
		return nil, nil // it never listened: nobody should wait for it
	}
	if p.GetState() == api.ProxyStatus_DRAINING || len(n.Ports) == 0 {
		return nil, nil
	}
	group, ok := in.cfg.Hosts.MayHost(n.Agent, n.Ref())
	if !ok {
		return n, notBound(group, n)
	}
	a, err := netip.ParseAddr(n.Address)
	a = a.Unmap().WithZone("")
	n.Ranged = !addressOfAgent(a, in.peer.Remote)
	if err != nil || n.Ranged && !in.cfg.Hosts.MayListen(group, a) {
		return n, &refusal{
			fmt.Sprintf("address %q is not the agent's own (it connects from %s), nor in a range of group %s", plain.Text(n.Address), in.peer.Remote, group),
			fmt.Sprintf("set bind of this proxy to %s in the agent's configuration, and reload that (SIGHUP), or in the bootstrap of an Envoy that it does not start, or name the range in addresses of NodeGroup %s: callers are sent to no other address", in.peer.Remote, group),
		}
	}
	n.Address = a.String()
	if slices.ContainsFunc(n.Ports, func(p uint32) bool { return p == 0 || p > 65535 }) {
		return n, &refusal{"port out of range", "signet get " + strings.ToLower(string(n.Ref().Kind)) + " " + plain.Text(n.Node) + " -o yaml"}
	}
	if in.crowd(n) >= mostOfOne {
		in.now = in.now.drop(in.now.of(n)) // it is in nobody's way
		return n, &refusal{fmt.Sprintf("agent %s has %d other proxies of %s/%s, and no host has more", n.Agent, mostOfOne, n.Mesh, n.Node), "run it on another host: callers choose from proxies, and one host is to take no other's share"}
	}
	return n, in.settle(n)
}

// settle has n be where it wants to be, unless somebody else is there. Who connects from an
// address has it before those whom only a range lets be there: a host of the same group
// cannot keep another from its own address.
func (in *reported) settle(n *Endpoint) *refusal {
	before, displaced := in.now, in.displaced
	for o := in.rival(n); o != nil; o = in.rival(n) {
		if n.Ranged || !o.Ranged || o.Agent == n.Agent {
			in.now, in.displaced = before, displaced
			return &refusal{fmt.Sprintf("%s is taken by proxy %s for %s/%s of agent %s since %s",
				n.Address, o.Proxy, o.Mesh, o.Node, o.Agent, plain.UTC(o.Since)), OtherBind}
		}
		in.now = in.now.drop(o)
		in.displaced = append(slices.Clone(in.displaced), Conflict{*o, fmt.Sprintf("%s is the own address of agent %s, which has a proxy there", n.Address, n.Agent), OtherBind})
	}
	return nil
}

// notBound names the group that the agent is in now: a host may have moved since it
// connected.
func notBound(group string, n *Endpoint) *refusal {
	if group == "" {
		return &refusal{fmt.Sprintf("agent %s is in no group, or is not to be served", n.Agent), "signet get agents -o wide"}
	}
	return &refusal{fmt.Sprintf("%s %s/%s is not bound to group %q of this agent", n.Ref().Kind.Words(), n.Mesh, n.Node, group), fmt.Sprintf("signet apply -f <file with a Binding of group %s, mesh %s and %s %s>", group, n.Mesh, n.Ref().Kind, n.Node)}
}

// addressOfAgent: the connection's own address, or loopback when the agent is on
// this machine. Nothing else is attested for it; an operator may say more, by ranges.
func addressOfAgent(a, remote netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	return a == remote || a.IsLoopback() && remote.IsLoopback()
}

// Left starts the grace period of an agent's endpoints, unless it is connected again, to
// whichever server (Reports).
func (e *Endpoints) Left(agent string) {
	e.cfg.Shared.Update(func(now *Known) *Known { return now.left(agent, e.cfg.Clock()) })
}

// Review drops the endpoints of those that may not host any more, or not there: the binding
// or the range is gone, the agent is banned or deleted. It looks at each, so it is called when one of those changed.
func (e *Endpoints) Review() {
	e.cfg.Shared.Update(func(now *Known) *Known {
		left := now.endpoints()
		for n := range left.all() {
			group, ok := e.cfg.Hosts.MayHost(n.Agent, n.Ref())
			if a, _ := netip.ParseAddr(n.Address); !ok || n.Ranged && !e.cfg.Hosts.MayListen(group, a) { // it is none that was parsed before
				left = left.drop(n)
			}
		}
		return now.withEndpoints(left)
	})
}

// Run announces what changed, here or at another server, and drops the endpoints
// whose grace is over, until ctx ends. It sleeps while nothing changes and nothing is due.
func (e *Endpoints) Run(ctx context.Context) error {
	var seen *Registered
	for {
		known, changed := e.cfg.Shared.Get()
		now := known.endpoints()
		if now != seen {
			seen = now
			e.cfg.Changed()
		}
		timer := time.NewTimer(e.expire(now)) // what it drops closes changed
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// expire drops the endpoints whose grace is over, and returns when the next one is. What
// is shared is not touched while there is none.
func (e *Endpoints) expire(now *Registered) time.Duration {
	if now.leaving.Empty() {
		return never
	}
	next, due := now.expired(e.cfg.Clock(), e.cfg.Grace)
	if next != now {
		e.cfg.Shared.Update(func(known *Known) *Known {
			now, due = known.endpoints().expired(e.cfg.Clock(), e.cfg.Grace)
			return known.withEndpoints(now)
		})
	}
	return due
}

// known is what all servers know now.
func (e *Endpoints) known() *Known {
	now, _ := e.cfg.Shared.Get()
	return now
}

// Snapshot is what is registered now.
func (e *Endpoints) Snapshot() *Registered { return e.known().endpoints() }

// Refused lists the endpoints that are reported and not served.
func (e *Endpoints) Refused() []Conflict {
	var list []Conflict
	for _, r := range e.known().refused.All() {
		list = append(list, r.list...)
	}
	return list
}

// Unserved are the proxies of an agent to which no caller is sent, and why.
func (e *Endpoints) Unserved(agent string) map[string]string {
	return reasons(e.known().refused.Get(ordered.String(agent)).all())
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
	n := 0
	for range e.Snapshot().all() {
		n++
	}
	return n
}
