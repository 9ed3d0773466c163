package fleet

import (
	"iter"
	"net/netip"
	"time"

	"signet.example/api"
	"signet.example/internal/ordered"
)

// Known is what all servers of one store know of the fleet: which run of each agent is
// served, and by which server, what it reported, and where the proxies of each virtual
// node listen. It is immutable, and all of it that is true for more than one server.
//
// It is one value, so that what depends on two parts of it is one step: a report is taken
// while the session that it came on is the agent's, and an agent has left when it has no
// session anywhere.
type Known struct {
	runs       ordered.Map[ordered.String, *Run]      // by agent
	refused    ordered.Map[ordered.String, *refusals] // by agent: what is reported and not served
	registered *Registered                            // nil for nothing
}

// Run is the run of an agent that is served: one at a time. Immutable.
type Run struct {
	served   bool         // an instance was let in, which is the following
	instance string       // "" of an agent of the version before
	from     netip.Prefix // where it was let in last: its address, or the /64 that it is in

	session *Session // nil while it is connected to no server
	place   *place   // of the run whose session has ended, nil where it is not kept
	last    LastSession
	clash   Clash
	inquiry *inquiry // of a server that another run asks to be let in at; the newest
}

// connectedSince reports whether the instance that is served has another session than this,
// which may be nil.
func (r Run) connectedSince(asked *Session) bool {
	s := r.session
	return s != nil && s.peer.Instance == r.instance && (asked == nil || s.id != asked.id)
}

// LastSession is what stays of an agent's last session, zero if there was none.
type LastSession struct {
	Report *api.Report // its latest, nil if it made none
	At     time.Time
}

// refusals are the endpoints of one agent that are reported and not served.
type refusals struct{ list []Conflict }

func (r *refusals) all() []Conflict {
	if r == nil {
		return nil
	}
	return r.list
}

// none is where nothing is registered.
var none = &Registered{}

// endpoints are those that are registered. The pointer is another one only if they are.
func (k *Known) endpoints() *Registered {
	if k.registered == nil {
		return none
	}
	return k.registered
}

func (k *Known) withEndpoints(r *Registered) *Known {
	if r == k.endpoints() {
		return k
	}
	next := *k
	next.registered = r
	return &next
}

// withRefused has list in the place of an agent's endpoints that are not served.
func (k *Known) withRefused(agent string, list []Conflict) *Known {
	next := *k
	if len(list) == 0 {
		next.refused = k.refused.Without(ordered.String(agent))
	} else {
		next.refused = k.refused.With(ordered.String(agent), &refusals{list})
	}
	return &next
}

// run is that of an agent, the zero one for none.
func (k *Known) run(agent string) Run {
	if r := k.runs.Get(ordered.String(agent)); r != nil {
		return *r
	}
	return Run{}
}

// withRun has what f makes of an agent's run in its place.
func (k *Known) withRun(agent string, f func(*Run)) *Known {
	r, next := k.run(agent), *k
	f(&r)
	next.runs = k.runs.With(ordered.String(agent), &r)
	return &next
}

// sessionOf is the id of an agent's session, "" while it has none.
func (k *Known) sessionOf(agent string) string {
	if s := k.run(agent).session; s != nil {
		return s.id
	}
	return ""
}

// ended is k without the session, if it is the agent's still. Its run keeps its place for
// a while unless the agent ended it.
func (k *Known) ended(s *Session, at time.Time, byAgent bool) (next *Known, last bool) {
	now := k.run(s.peer.Agent.ID).session
	if now == nil || now.id != s.id {
		return k, false
	}
	return k.withRun(s.peer.Agent.ID, func(r *Run) {
		r.session, r.last, r.inquiry = nil, LastSession{now.report, at}, nil
		if !byAgent {
			r.place = &place{s.id, s.peer.Instance, at}
		}
	}), true
}

// left has the grace of an agent's endpoints begin, unless it has a session again.
func (k *Known) left(agent string, at time.Time) *Known {
	if k.sessionOf(agent) != "" {
		return k
	}
	now := k.endpoints()
	for _, n := range now.OfAgent(agent) {
		if n.Gone.IsZero() {
			gone := *n
			gone.Gone = at
			now = now.put(&gone)
		}
	}
	k = k.withEndpoints(now)
	if k.refused.Get(ordered.String(agent)) != nil {
		k = k.withRefused(agent, nil)
	}
	return k
}

// without is k without all that is known of an agent's runs, and of what is not served of it.
func (k *Known) without(agent string) *Known {
	next := *k
	next.runs, next.refused = k.runs.Without(ordered.String(agent)), k.refused.Without(ordered.String(agent))
	return &next
}

// sessions are those of all agents, by their ids.
func (k *Known) sessions() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		for _, r := range k.runs.All() {
			if r.session != nil && !yield(r.session) {
				return
			}
		}
	}
}
