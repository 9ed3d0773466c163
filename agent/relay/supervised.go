package relay

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent/svids"
)

// Supervised is what a proxy of the configuration runs by. It begins as the view of a
// binding that what the proxy is given fits, and is that of the binding that its process
// was attested to from the first stream on: bindings of one virtual node may differ in
// what shows only then. It implements envoy.View.
//
// Relay.mu is taken before View.claims, and that before the lock of the addresses.
type Supervised struct {
	relay *Relay
	name  string
	gone  chan struct{} // closed when view is

	view    *View // guarded by relay.mu
	claimed bool  // the proxy runs or is about to; guarded by relay.mu
}

// supervise has a proxy that does not run yet run by v.
func (r *Relay) supervise(name string, v *View) *Supervised {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.proxies[name]
	if ok && p.by != nil && p.by.view == v {
		return p.by
	}
	by := &Supervised{relay: r, name: name, gone: make(chan struct{}), view: v}
	if ended(v.gone) {
		close(by.gone)
	}
	if ok {
		p.by = by
		r.proxies[name] = p
	}
	r.changed.Update(func(n int) int { return n + 1 })
	return by
}

// follow has a supervised proxy run by v, which its process is bound to.
func (r *Relay) follow(name string, v *View) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	by := r.proxies[name].by
	if by == nil || by.view == v {
		return nil
	}
	if ended(v.gone) || ended(by.gone) { // its proxy is being stopped
		return status.Error(codes.Unavailable, "what this proxy was bound to has changed: try again")
	}
	old := by.view
	by.view = v
	r.changed.Update(func(n int) int { return n + 1 })
	if !by.claimed {
		return nil
	}
	old.give()
	return v.take(name)
}

// endSupervised ends the proxies that run by v, which is gone. The caller holds mu.
func (r *Relay) endSupervised(v *View) {
	for _, p := range r.proxies {
		if p.by != nil && p.by.view == v {
			close(p.by.gone)
		}
	}
}

func (s *Supervised) now() *View {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	return s.view
}

// Ready implements envoy.View.
func (s *Supervised) Ready() (bool, <-chan struct{}) {
	set, changed := s.now().published.Get()
	return set != nil, changed
}

// Claim implements envoy.View.
func (s *Supervised) Claim(name string) (release func(), err error) {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	if err := s.view.claim(name); err != nil {
		return nil, err
	}
	s.claimed = true
	return s.release, nil
}

func (s *Supervised) release() {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	s.claimed = false
	s.view.unclaim()
}

// Gone implements envoy.View.
func (s *Supervised) Gone() <-chan struct{} { return s.gone }

// SVID implements envoy.View.
func (s *Supervised) SVID() *svids.SVID {
	v := s.now()
	return v.svids.Get(v.as.Entry)
}

func ended(gone <-chan struct{}) bool {
	select {
	case <-gone:
		return true
	default:
		return false
	}
}
