package ads

import (
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bound is how long a stream waits for an acknowledgement before it goes on
// without it, and says so.
const bound = 5 * time.Second

// window is how many responses of one type may be unanswered. A client that
// answers each before it reads the next would otherwise block, and with it the
// stream, once transport buffers are full of thousands of answers; and of one that
// reads and never answers each version that there was would be kept.
const window = 64

// maxResponse is where a delta response is cut, below the 4 MiB that gRPC
// clients accept by default.
const maxResponse = 2 << 20

// machine is the protocol state of one stream, without its transport: requests
// and generations go in, frames and events come out. It is used from one
// goroutine at a time and reads no clock.
type machine struct {
	mode  Mode
	delta bool
	id    string // of the stream; nonces begin with it, so that none fits another stream (XDS-02)
	seq   uint64 // of the last nonce

	client string // what the client is, see Rejection

	topics  []*topic // by rank
	gate    gate
	settled uint64 // generation whose listeners and routes the client has acknowledged

	startSince time.Time // see starting

	drain    time.Duration // see Server.Drain
	moved    bool          // a listener that the client had has changed or gone since settled
	linger   time.Duration // see Server.Linger
	rerouted bool          // a route configuration that the client had has changed or gone since settled
	draining time.Time     // when the client is done with listeners and routes that moved

	out pass // of the step under way
}

// pass is what one step decided.
type pass struct {
	frames []*frame
	notes  []note
	// deadline is when to step again although nothing happened; zero: never.
	deadline time.Time
	// settled is the generation that the client has settled at, and waiting
	// says that something is kept until every stream has.
	settled uint64
	waiting bool
	// answered says that the client has answered all that it is to have of the generation:
	// acknowledged it, or refused it and was sent what it has instead.
	answered bool
	// more says that a window was full: not all of the generation was sent.
	more bool
}

// note is an event for each of some resources, or one that is about none. A client may
// acknowledge thousands at once.
type note struct {
	event Event
	about []*Resource
}

// topic finds the state of a type, or begins it.
func (m *machine) topic(typeURL string, st *state) (t *topic, fresh bool, err error) {
	for _, t := range m.topics {
		if t.url == typeURL {
			return t, false, nil
		}
	}
	if _, ok := st.set.group(typeURL); !ok && !known(typeURL) {
		return nil, false, status.Errorf(codes.InvalidArgument, "type %.200q is not served here", typeURL)
	}
	t = &topic{url: ours(typeURL), delta: m.delta}
	m.topics = append(m.topics, t)
	slices.SortStableFunc(m.topics, func(a, b *topic) int { return rank(a.url) - rank(b.url) })
	return t, true, nil
}

// find returns the state of a type, or nil if the client never asked for it.
func (m *machine) find(typeURL string) *topic {
	for _, t := range m.topics {
		if t.url == typeURL {
			return t
		}
	}
	return nil
}

// deltaRequest takes a request and returns what the client thereby refused.
func (m *machine) deltaRequest(req *discoveryv3.DeltaDiscoveryRequest, st *state) ([]Rejection, error) {
	t, fresh, err := m.topic(req.GetTypeUrl(), st)
	if err != nil {
		return nil, err
	}
	rejs := m.reply(t, req.GetResponseNonce(), req.GetErrorDetail())
	return rejs, t.subscribe(req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe(), req.GetInitialResourceVersions(), fresh, st.set.Type(req.GetTypeUrl()))
}

// sotwRequest takes a request and returns what the client thereby refused.
// One with a stale nonce was overtaken by a response on its way; the client
// will repeat its names when it answers that (XDS-06).
func (m *machine) sotwRequest(req *discoveryv3.DiscoveryRequest, st *state) ([]Rejection, error) {
	t, fresh, err := m.topic(req.GetTypeUrl(), st)
	if err != nil {
		return nil, err
	}
	rejs := m.reply(t, req.GetResponseNonce(), req.GetErrorDetail())
	if !fresh && t.last != "" && req.GetResponseNonce() != t.last {
		return rejs, nil
	}
	return rejs, t.replace(req.GetResourceNames())
}

// step brings the client towards a generation. cleared is the one that every
// stream of the view has settled at.
func (m *machine) step(st *state, cleared uint64, now time.Time) pass {
	if st.set == nil {
		return pass{settled: m.settled} // silence until the first Publish
	}
	m.out = pass{notes: m.out.notes} // of replies since the last step
	attached := m.attached(st)
	quiet, held, flying := attached, false, false
	for _, t := range m.topics {
		if t.url == ViewType && m.out.more {
			break // it closes a complete state only
		}
		target, substituted := m.target(t, st, cleared, now)
		sent := m.send(t, target, st, now)
		held, flying = held || !sent, flying || len(t.flight) > 0
		if isReferring(t.url) && (substituted || !sent || len(t.flight) > 0) {
			quiet = false
		}
	}
	if !held {
		m.gate.since = time.Time{}
	}
	if quiet {
		m.settled = st.gen
		m.leaveTime(now)
	}
	out := m.out
	out.settled = m.settled
	out.answered = attached && !held && !flying && !out.more && !m.unasked(st)
	m.out = pass{}
	return out
}

// leaveTime gives the client time to be done with what it had before its
// listeners and routes changed, and never takes back what it was given.
func (m *machine) leaveTime(now time.Time) {
	var d time.Duration
	if m.rerouted {
		d = m.linger
	}
	if m.moved {
		d = max(d, m.drain)
	}
	m.rerouted, m.moved = false, false
	if due := now.Add(d); due.After(m.draining) {
		m.draining = due
	}
}

// attached reports whether a client that has clusters has asked for listeners and
// routes, if there are any. Until a proxy that reconnects has, it runs on
// routes that this server knows nothing of.
func (m *machine) attached(st *state) bool {
	if m.find(ClusterType) == nil {
		return true
	}
	for _, t := range []string{ListenerType, RouteType} {
		if len(st.set.Type(t)) > 0 && m.find(t) == nil {
			return false
		}
	}
	return true
}

// unasked reports whether the client has yet to ask for routes that its listeners name: it
// does so when it takes a listener, and may answer that first.
func (m *machine) unasked(st *state) bool {
	l, t := m.find(ListenerType), m.find(RouteType)
	if l == nil {
		return false
	}
	names := map[string]string{}
	for _, r := range st.set.Type(RouteType) {
		if t == nil || !t.has(r.Name) {
			names[r.Name] = ""
		}
	}
	return len(names) > 0 && slices.ContainsFunc(l.acked, func(r *Resource) bool {
		_, ok := r.refers(names)
		return ok
	})
}

// target is what the client is to have of a type: what it subscribed to of the
// set, without what was refused, and with what must not disappear yet.
// substituted says that something refused was left out.
func (m *machine) target(t *topic, st *state, cleared uint64, now time.Time) (list []*Resource, substituted bool) {
	list = t.filter(st.set.Type(t.url))
	if m.mode != Proxy {
		return list, false
	}
	list, substituted = t.spare(list, st, m.client)
	if isReferred(t.url) && !same(list, t.sent) {
		list = m.keepRemoved(t, list, st, cleared, now)
	}
	return list, substituted
}

// spare replaces what clients of the view refused by what this one has, or
// others had before (R8).
func (t *topic) spare(list []*Resource, st *state, client string) (_ []*Resource, substituted bool) {
	for k, rej := range st.bad {
		if k.typeURL != t.url || !k.isOf(client) {
			continue
		}
		r := find(list, k.name)
		if r == nil || r.Version != rej.Version {
			continue
		}
		has := find(t.sent, k.name)
		switch good := st.good[k.key]; {
		case has != nil && has.Version == rej.Version:
			continue // this client took it, or is about to answer
		case has != nil:
			list = with(list, has)
		case good != nil:
			list = with(list, good)
		default:
			list = without(list, k.name)
		}
		substituted = true
	}
	return list, substituted
}

// send emits what leads from what the client has to target, and reports
// whether it could do all of it, or had nothing to do.
func (m *machine) send(t *topic, target []*Resource, st *state, now time.Time) bool {
	changed, removed := diff(t.sent, target)
	absent := t.absent(target)
	if len(changed)+len(removed)+len(absent) == 0 && !t.owe {
		return true
	}
	if len(changed)+len(removed) > 0 && m.starting(t, st, now) {
		return true // the subscription to listeners will bring us back
	}
	waits := false
	if len(changed) > 0 && m.mode == Proxy && isReferring(t.url) {
		ready := m.usable(t, changed, st, now)
		if waits = len(ready) < len(changed); waits {
			// In a state-of-the-world response of listeners, absence means deletion.
			if len(ready) == 0 || !t.delta && isFull(t.url) {
				return false
			}
			// What goes away waits with the rest, which may come in its place.
			target = patch(t.sent, ready, func(*Resource) bool { return true })
			changed, removed, absent = ready, nil, nil
		}
	}
	if len(t.flight) >= window {
		m.out.more = true
		return true // an answer will bring us back
	}
	t.owe = false
	if !waits {
		t.asked = nil // and its room, which is that of the most names there were
	}
	m.moved = m.moved || m.drain > 0 && t.url == ListenerType && t.moves(changed, removed)
	m.rerouted = m.rerouted || m.linger > 0 && t.url == RouteType && t.moves(changed, removed)
	if m.delta {
		removed = slices.Concat(removed, absent)
		slices.Sort(removed)
		m.sendDelta(t, target, changed, removed, st.set)
	} else {
		m.sendSotW(t, target, changed, removed, st.set)
	}
	if isReferred(t.url) {
		m.gate.passed = false
	}
	return !waits
}

// moves reports whether a change touches what the client has already.
func (t *topic) moves(changed []*Resource, removed []string) bool {
	return len(removed) > 0 || slices.ContainsFunc(changed, func(r *Resource) bool { return find(t.sent, r.Name) != nil })
}

// absent lists names that were asked for, do not exist, and were not had
// before: a delta client is told so (XDS-20).
func (t *topic) absent(target []*Resource) []string {
	if !t.delta || len(t.asked) == 0 {
		return nil
	}
	var names []string
	for n := range t.asked {
		if find(target, n) == nil && find(t.sent, n) == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// sendDelta cuts a delta into responses: one per route configuration, so that
// a refusal names it exactly (R7), else as few as fit. What exceeds the
// window goes once responses are answered.
func (m *machine) sendDelta(t *topic, target, changed []*Resource, removed []string, of *Set) {
	rest := changed
	for first := true; first || len(rest) > 0; first = false {
		if len(t.flight) >= window {
			m.out.more = true
			t.sent = t.partly(changed[:len(changed)-len(rest)], changed, target)
			return
		}
		n := cut(rest, t.url == RouteType)
		if t.url == RouteType && len(removed) > 0 {
			n = 0
		}
		r := response{nonce: m.nonce(), changed: rest[:n], removed: removed}
		rest, removed = rest[n:], nil
		m.out.frames = append(m.out.frames, newFrame(of, t.url, r.nonce, r.changed, r.removed, true))
		t.flight, t.last = append(t.flight, r), r.nonce
	}
	t.flight[len(t.flight)-1].after = target
	t.sent = target
}

// partly is what the client has, or has on its way, when only some of what
// changed was sent: the rest is as it was.
func (t *topic) partly(went, changed, target []*Resource) []*Resource {
	var list []*Resource
	walk(t.sent, target, func(was, is *Resource) {
		switch {
		case is == nil: // removals went first
		case find(went, is.Name) != nil || find(changed, is.Name) == nil:
			list = append(list, is)
		case was != nil:
			list = append(list, was)
		}
	})
	return list
}

// cut returns how many resources go into the next response.
func cut(rs []*Resource, single bool) int {
	if single {
		return min(1, len(rs))
	}
	size := 0
	for i, r := range rs {
		if size += r.size(); size > maxResponse && i > 0 {
			return i
		}
	}
	return len(rs)
}

// sendSotW emits one response: everything of a full type, else what changed.
func (m *machine) sendSotW(t *topic, target, changed []*Resource, removed []string, of *Set) {
	t.sent = target
	body := changed
	if isFull(t.url) {
		body = target
	} else if len(changed) == 0 {
		// Deletion is told by the parent (XDS-14).
		t.acked = patch(t.acked, nil, func(r *Resource) bool { return find(target, r.Name) != nil })
		return
	}
	r := response{nonce: m.nonce(), changed: changed, removed: removed, after: target}
	m.out.frames = append(m.out.frames, newFrame(of, t.url, r.nonce, body, nil, false))
	t.flight = append(t.flight, r)
	t.last = r.nonce
}

// nonce is unique on the stream (XDS-01).
func (m *machine) nonce() string {
	m.seq++
	return m.id + "." + strconv.FormatUint(m.seq, 10)
}

// event notes something about resources of a type, or about none of them.
func (m *machine) event(kind EventKind, typeURL, message string, about ...*Resource) {
	m.out.notes = append(m.out.notes, note{Event{Kind: kind, Stream: m.id, Type: typeURL, Message: message}, about})
}

// until asks for another step at that time at the latest.
func (m *machine) until(due time.Time) {
	if m.out.deadline.IsZero() || due.Before(m.out.deadline) {
		m.out.deadline = due
	}
}

// named is how much the machine holds of what its client named.
func (m *machine) named() int {
	n := 0
	for _, t := range m.topics {
		for name := range t.names {
			n += len(name) + perName
		}
		for name := range t.asked {
			n += len(name) + perName
		}
		for _, r := range t.sent {
			n += r.claimed()
		}
		for _, r := range t.acked { // what was taken back, and not acknowledged yet
			if find(t.sent, r.Name) != r {
				n += r.claimed()
			}
		}
	}
	return n
}

// claimed is what a resource costs of which there is the client's word alone.
func (r *Resource) claimed() int {
	if r.Body != nil {
		return 0
	}
	return len(r.Name) + len(r.Version) + 2*perName
}
