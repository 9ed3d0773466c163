package ads

import (
	"time"
)

// canaryBound is how long the client of one stream may take to answer for the others.
const canaryBound = time.Second

// lostCanaries is how many streams in a row may end before they have answered: what ends the
// proxies that take it is not for the rest.
const lostCanaries = 2

// canary is a generation that some streams of a view have before the others (R9).
type canary struct {
	st *state // replaced under View.change

	// In Proxy mode one stream has it, until its client has answered or timer ends that.
	by    *stream
	timer *time.Timer
	lost  int // streams that ended meanwhile

	peer string // in Relay mode the streams of this peer have it, until the next Publish
}

// current is the generation that a stream is to have.
func (s *stream) current() *state {
	if st := s.tries.Load(); st != nil {
		return st
	}
	return s.view.state.Load()
}

// Try has the streams of one peer (Server.Peer) have s, and no others until the next
// Publish, which ends it. It is for Relay mode, in which a client's acknowledgement says
// nothing of the proxies behind it: whoever learns what these say publishes.
func (v *View) Try(s *Set, peer string) {
	v.change.Lock()
	defer v.change.Unlock()
	old := v.state.Load()
	c := &canary{st: v.next(old, s.interned(old.set)), peer: peer}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.canary = c
	for st := range v.streams {
		if st.peer == peer {
			st.have(c.st)
		} else if st.tries.Load() != nil {
			st.have(nil)
		}
	}
}

// have gives a stream a generation of its own, nil for that of all.
func (s *stream) have(st *state) {
	s.tries.Store(st)
	s.wake()
}

// offer makes s what clients are to have, one of them first where it could be refused.
// The caller holds change.
func (v *View) offer(s *Set) {
	old := v.state.Load()
	if s = s.interned(old.set); v.mode != Proxy || v.Streams() < 2 || old.set == nil || !old.untried(s) {
		v.latest.Store(s)
		v.swap(v.next(old, s))
		v.endCanary()
		return
	}
	v.replaceSecrets(s)
	v.latest.Store(s)
	if v.canary != nil {
		v.parked = s
		return
	}
	old = v.state.Load()
	next := v.next(old, s.interned(old.set))
	by := v.first()
	if by == nil {
		v.swap(next)
		return
	}
	c := &canary{st: next, by: by}
	c.timer = time.AfterFunc(canaryBound, func() { v.expire(c) })
	v.mu.Lock()
	defer v.mu.Unlock()
	v.canary = c
	by.have(next)
}

// replaceSecrets has all streams have the secrets of s now: a certificate waits for nothing.
// The caller holds change.
func (v *View) replaceSecrets(s *Set) {
	if old := v.state.Load(); old.set.TypeVersion(SecretType) != s.TypeVersion(SecretType) {
		v.swap(v.next(old, old.set.withType(SecretType, s)))
	}
	if c := v.canary; c != nil && c.st.set.TypeVersion(SecretType) != s.TypeVersion(SecretType) {
		c.st = v.next(c.st, c.st.set.withType(SecretType, s))
		c.by.have(c.st)
	}
}

// first is the stream whose client answers for the others: which answered the newest that
// any has, and was fastest to, so that nobody waits for a slow one. Nil where none has
// answered anything so far.
func (v *View) first() (found *stream) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.streams {
		if s.answered == 0 || s.mute {
			continue
		}
		if found == nil || s.answered > found.answered || s.answered == found.answered && s.answeredAt.Before(found.answeredAt) {
			found = s
		}
	}
	return found
}

// endCanary has the streams of a canary have what all have: that is replaced before, or they
// would have what was before the canary for a moment. The caller holds change.
func (v *View) endCanary() {
	c := v.canary
	if c == nil {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.canary, v.parked = nil, nil
	for s := range v.streams {
		if s.tries.Load() != nil {
			s.have(nil)
		}
	}
}

// conclude has all streams have what was tried, without what was refused of it, and goes on
// with what was published meanwhile. The caller holds change.
func (v *View) conclude() {
	c, parked := v.canary, v.parked
	v.swap(c.st)
	v.endCanary()
	if parked != nil {
		v.offer(parked)
	}
}

// passed concludes the canary of a generation that a stream's client has answered.
func (v *View) passed(s *stream, gen uint64) {
	v.change.Lock()
	defer v.change.Unlock()
	if c := v.canary; c != nil && c.by == s && c.st.gen == gen {
		v.conclude()
	}
}

// expire ends a canary whose client says nothing: the others do not wait for it, and the
// next canary is another's.
func (v *View) expire(c *canary) {
	v.change.Lock()
	if v.canary != c {
		v.change.Unlock()
		return
	}
	by := c.by
	v.mu.Lock()
	by.mute = true
	v.mu.Unlock()
	v.conclude()
	v.change.Unlock()
	by.server.emit(v.name, Event{Kind: Stuck, Stream: by.id, Message: "what one proxy was sent first is sent to the others before it has answered"})
}

// lose has another stream try what a stream that ended was trying.
func (v *View) lose(s *stream) {
	v.change.Lock()
	c := v.canary
	if c == nil || c.by != s {
		v.change.Unlock()
		return
	}
	var refused []Rejection
	if c.lost++; c.lost == lostCanaries {
		old := v.state.Load()
		for _, typeURL := range refusable {
			for _, r := range old.newIn(c.st.set, typeURL) {
				refused = append(refused, Rejection{r.Type, r.Name, r.Version, "the streams of two proxies ended, one after the other, before they had answered it", anyClient})
			}
		}
		c.st = c.st.refuse(refused)
		v.conclude()
	} else if by := v.first(); by != nil {
		c.by = by
		by.have(c.st)
	} else {
		v.conclude()
	}
	v.change.Unlock()
	for _, j := range refused {
		s.server.emit(v.name, Event{Kind: Rejected, Stream: s.id, Type: j.Type, Name: j.Name, Version: j.Version, Message: j.Message})
	}
}
