package ads

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Mode says who is attached to a View's streams.
type Mode int

const (
	// Proxy serves Envoy: make before break, waits for acknowledgements, and
	// what one proxy refused is kept from the others.
	Proxy Mode = iota + 1
	// Relay serves an agent, which acknowledges on receipt: the same order,
	// closed by the ViewType resource, and no waits.
	Relay
)

// View is what clients of one kind see. It is safe for concurrent use.
type View struct {
	name  string
	mode  Mode
	state atomic.Pointer[state] // replaced under change

	latest atomic.Pointer[Set] // that was published; replaced under change

	change  sync.Mutex // one publication or rejection at a time; before mu
	gens    uint64     // of the newest generation; guarded by change
	parked  *Set       // what was published while another is tried; guarded by change
	canary  *canary    // written under change and mu, read under either
	mu      sync.Mutex
	streams map[*stream]struct{}
	settled map[uint64]int // how many streams have settled at which generation
	cleared uint64         // every stream has settled at this generation
}

// NewView returns a view whose streams stay silent until its first Publish: an
// empty answer would tell a proxy to delete all it has (R6).
func NewView(name string, mode Mode) *View {
	v := &View{name: name, mode: mode, streams: make(map[*stream]struct{}), settled: make(map[uint64]int)}
	v.state.Store(&state{})
	return v
}

// Name returns the name given to NewView.
func (v *View) Name() string { return v.name }

// Publish makes s what the view's clients are to have and wakes their streams.
// A set that equals the last one wakes nobody.
func (v *View) Publish(s *Set) {
	if s == nil {
		s = new(Set)
	}
	v.change.Lock()
	defer v.change.Unlock()
	if was := v.latest.Load(); was != nil && was.Version() == s.Version() && (v.mode == Proxy || v.canary == nil) {
		return
	}
	v.offer(s)
}

// swap makes st current and wakes the streams.
func (v *View) swap(st *state) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.state.Store(st)
	v.wake(func(*stream) bool { return true })
}

// next is the generation after old, which no other one is. The caller holds change.
func (v *View) next(old *state, s *Set) *state {
	v.gens++
	return old.next(s, v.gens)
}

// reject records refused versions, unless the set has moved on, and wakes the
// other streams, which may have been about to send them.
func (v *View) reject(rejs []Rejection) {
	v.change.Lock()
	defer v.change.Unlock()
	v.swap(v.state.Load().refuse(rejs))
	if c := v.canary; c != nil && c.by != nil {
		c.st = c.st.refuse(rejs)
		c.by.have(c.st)
	}
}

// Set returns the last published set, nil before the first.
func (v *View) Set() *Set { return v.latest.Load() }

// Streams returns how many streams are connected.
func (v *View) Streams() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.streams)
}

// Synced reports whether clients are connected and all of them have acknowledged what they are
// to have, and when the last one did.
func (v *View) Synced() (at time.Time, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.canary != nil {
		return time.Time{}, false
	}
	gen := v.state.Load().gen
	for s := range v.streams {
		if s.confirmed < gen {
			return time.Time{}, false
		}
		if s.confirmedAt.After(at) {
			at = s.confirmedAt
		}
	}
	return at, len(v.streams) > 0
}

// Answered reports whether clients are connected, and all of them have acknowledged or refused
// what they are to have.
func (v *View) Answered() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	gen := v.state.Load().gen
	for s := range v.streams {
		if s.answered < gen {
			return false
		}
	}
	return len(v.streams) > 0 && v.canary == nil
}

// answer notes that a stream's client has answered all of a generation, and reports whether
// that is new.
func (v *View) answer(s *stream, gen uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if gen <= s.answered {
		return false
	}
	s.answered, s.answeredAt, s.mute = gen, time.Now(), false
	return true
}

// Rejected lists what clients refused and what is therefore withheld, by type and name.
func (v *View) Rejected() []Rejection {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := v.state.Load()
	if c := v.canary; c != nil && c.by != nil {
		st = c.by.current()
	}
	return st.rejections()
}

// Acked returns the published version of a resource, how many streams have
// acknowledged that version, and how many are subscribed to it.
func (v *View) Acked(typeURL, name string) (version string, streams, total int) {
	r := v.Set().Get(typeURL, name)
	if r == nil {
		return "", 0, 0
	}
	v.mu.Lock()
	all := slices.Collect(maps.Keys(v.streams))
	v.mu.Unlock()
	for _, s := range all {
		has, subscribed := s.acked(typeURL, name)
		if subscribed {
			total++
		}
		if has == r.Version {
			streams++
		}
	}
	return r.Version, streams, total
}

// Holding lists what the clients have of a type, of those that have answered a whole set at
// least once: each resource once, in a version that one of them has acknowledged. It reports
// false while there is no such client. What a client had before it came and is not what there
// is now has no body.
func (v *View) Holding(typeURL string) (list []*Resource, ok bool) {
	v.mu.Lock()
	var all []*stream
	for s := range v.streams {
		if s.answered > 0 {
			all = append(all, s)
		}
	}
	v.mu.Unlock()
	for _, s := range all {
		list = append(list, s.holding(typeURL)...)
	}
	slices.SortFunc(list, byName)
	for i, r := range list {
		if now := v.Set().Get(typeURL, r.Name); now != nil && now.Version == r.Version {
			list[i] = now // it came before there was anything to compare with
		}
	}
	return slices.CompactFunc(list, func(a, b *Resource) bool { return a.Name == b.Name }), len(all) > 0
}

// join adds a stream. It counts as settled: what it has from before it came is
// its own machine's business.
func (v *View) join(s *stream) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.canary; c != nil && c.by == nil && c.peer == s.peer {
		s.tries.Store(c.st)
	}
	s.settled = v.state.Load().gen
	v.streams[s] = struct{}{}
	v.settled[s.settled]++
	v.advance()
}

// leave removes a stream, so that nobody waits for it.
func (v *View) leave(s *stream) {
	v.mu.Lock()
	delete(v.streams, s)
	v.uncount(s.settled)
	v.advance()
	v.mu.Unlock()
	v.lose(s)
}

// settle records that a stream has acknowledged the listeners and routes of a
// generation, and whether it waits for others to do so; cleared is what it
// knew of them when it decided that.
func (v *View) settle(s *stream, gen uint64, waiting bool, cleared uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.waiting = waiting
	if gen > s.confirmed {
		s.confirmed, s.confirmedAt = gen, time.Now()
	}
	if gen > s.settled {
		v.uncount(s.settled)
		s.settled = gen
		v.settled[gen]++
		v.advance()
	}
	if waiting && v.cleared != cleared {
		s.wake() // they did while this stream was sending
	}
}

// clear returns the generation that every stream has settled at.
func (v *View) clear() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cleared
}

func (v *View) uncount(gen uint64) {
	if v.settled[gen]--; v.settled[gen] == 0 {
		delete(v.settled, gen)
	}
}

// advance raises cleared to what the slowest stream has settled at. There are
// as many keys as generations under way, two or three.
func (v *View) advance() {
	lowest := v.state.Load().gen
	for gen := range v.settled {
		lowest = min(lowest, gen)
	}
	if lowest > v.cleared {
		v.cleared = lowest
		v.wake(func(s *stream) bool { return s.waiting })
	}
}

// wake has the streams that which picks look again; it never blocks.
func (v *View) wake(which func(*stream) bool) {
	for s := range v.streams {
		if which(s) {
			s.wake()
		}
	}
}
