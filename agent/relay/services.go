package relay

import "net/netip"

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
