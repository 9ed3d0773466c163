package relay

import (
	"maps"
	"net/netip"
	"slices"
)

// ServiceAddress returns the loopback address of a service that a proxy of this host calls, by its
// name in lower case, as the servers said last. It is not valid where proxies of several meshes
// have different ones.
func (r *Relay) ServiceAddress(name string) (address netip.Addr, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		released := s.released.Load()
		if released == nil || released.services[name] == "" {
			continue
		}
		at, _ := netip.ParseAddr(released.services[name]) // else not valid, as where there are two
		if known && at != address {
			return netip.Addr{}, true
		}
		address, known = at, true
	}
	return address, known
}

// Services returns the names of all services that proxies of this host call, in order, and whether
// that is all: each proxy of the configuration that is to find services at their addresses has its
// routes, and there is one that has any. changed is closed when another set was released.
func (r *Relay) Services() (list []string, complete bool, changed <-chan struct{}) {
	_, changed = r.served.Get()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]bool{}
	for _, s := range r.subs {
		if released := s.released.Load(); released != nil {
			complete = true
			for name := range released.services {
				all[name] = true
			}
		}
	}
	for _, p := range r.proxies {
		if s := r.subs[p.sub]; p.sub.shape.ServiceAddresses && (s == nil || s.released.Load() == nil) {
			complete = false
		}
	}
	return slices.Sorted(maps.Keys(all)), complete, changed
}
