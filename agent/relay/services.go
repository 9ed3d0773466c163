package relay

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"signet.example/ads"
	"signet.example/attestation"
	"signet.example/proxy"
)

// ServiceAddress returns the loopback address of a service that a proxy of this host calls, by its
// name in lower case, as the servers said last. It is not valid where proxies of several meshes
// have different ones, and where somebody else listens there: a port is anybody's who listens
// first, and has what is called there without TLS.
func (r *Relay) ServiceAddress(name string) (address netip.Addr, known bool) {
	address, ports, known := r.serviceAt(name)
	if !address.IsValid() || !r.tenants.only(r.config.Log, name, address, ports) {
		return netip.Addr{}, known
	}
	return address, true
}

// serviceAt is the address, and the ports at which proxies listen there.
func (r *Relay) serviceAt(name string) (address netip.Addr, ports []uint16, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		released := s.released.Load()
		if released == nil || released.services[name] == "" {
			continue
		}
		at, _ := netip.ParseAddr(released.services[name]) // else not valid, as where there are two
		if known && at != address {
			return netip.Addr{}, nil, true
		}
		address, known = at, true
		for _, l := range released.set.Type(ads.ListenerType) {
			text, there := strings.CutPrefix(l.Name, proxy.EgressListenerPrefix+released.services[name]+"_")
			if p, err := strconv.ParseUint(text, 10, 16); there && err == nil {
				ports = append(ports, uint16(p))
			}
		}
	}
	return address, ports, known
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

// tenants are the users who may listen at the addresses of services: of proxies that were given
// listeners there. A user whose stream has ended stays one, since his proxy may listen yet; they
// are as many as the users whom Bindings fit.
type tenants struct {
	mu    sync.Mutex
	users map[uint32]bool // guarded by mu
	said  map[string]bool // the services of which the log has said that others listen; guarded by mu
}

// add lets a user listen there.
func (t *tenants) add(uid uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[uid] = true
}

// only reports whether nobody else listens where a service is called. The log says it once that
// somebody does, and once that he does no more.
func (t *tenants) only(log *slog.Logger, service string, at netip.Addr, ports []uint16) bool {
	var err error
	for _, p := range ports {
		if err = t.check(netip.AddrPortFrom(at, p)); err != nil {
			break
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch said := t.said[service]; {
	case err != nil && !said:
		log.Warn("the name of a service is not answered (SERVFAIL)", slog.String("service", service), slog.Any("err", err))
		t.said[service] = true
	case err == nil && said:
		log.Info("the name of a service is answered again", slog.String("service", service))
		delete(t.said, service)
	}
	return err == nil
}

func (t *tenants) check(at netip.AddrPort) error {
	owners, err := attestation.ListenerOwners(at)
	if err != nil {
		return fmt.Errorf("who listens at %s cannot be seen: %w", at, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range owners {
		switch {
		case !o.Known():
			return fmt.Errorf("%s: who listens there %w", at, errUnknownUser)
		case !t.users[o.UID]:
			return fmt.Errorf("user %d listens at %s, or at that port of all addresses, and no proxy of this host is that user's: end it, or have it listen elsewhere, and start the proxy anew", o.UID, at)
		}
	}
	return nil
}
