package relay

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/proxy"
)

// addresses is where each supervised proxy listens. Envoys share an address and port
// that two of them want (SO_REUSEPORT), and each gets calls that are the other's:
// the second one is not started, and where it runs it is not told of the listener.
//
// So with where their applications listen: of two virtual nodes at one place each would
// serve the other's calls, and whoever is the one's application could speak as the other.
type addresses struct {
	mu     sync.Mutex
	by     map[netip.AddrPort]tenure       // guarded by mu
	behind map[string]map[string]proxy.Ref // for what each proxy runs, by the place and port of its application; guarded by mu
}

// tenure is who has an address: for as long as it listens there, and until, where
// that is set, for as long as a listener that is gone may drain.
type tenure struct {
	proxy string
	until time.Time
}

// claim takes all of at for a proxy, or nothing.
func (t *addresses) claim(proxy string, at []netip.AddrPort) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.taken(proxy, at); err != nil {
		return err
	}
	if t.by == nil {
		t.by = map[netip.AddrPort]tenure{}
	}
	for _, address := range at {
		t.by[address] = tenure{proxy: proxy}
	}
	return nil
}

// free reports whether claim would take all of at.
func (t *addresses) free(proxy string, at []netip.AddrPort) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken(proxy, at)
}

// taken is why a proxy cannot have all of at; the caller holds mu.
func (t *addresses) taken(proxy string, at []netip.AddrPort) error {
	var first netip.AddrPort // of several, so that the reason stays the same
	for _, address := range at {
		for has, other := range t.by {
			if !other.until.IsZero() && time.Now().After(other.until) {
				delete(t.by, has)
			} else if other.proxy != proxy && overlap(address, has) && (!first.IsValid() || has.Compare(first) < 0) {
				first = has
			}
		}
	}
	if first.IsValid() {
		return fmt.Errorf("its address is taken: proxy %s listens on %s", t.by[first].proxy, first)
	}
	return nil
}

// serve notes that a proxy has its application at a port, or refuses that where one that
// runs for another virtual node has its own there.
func (t *addresses) serve(name string, of subscriptionKey, port uint32) error {
	at := applicationAt(of, port)
	if at == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, other := range slices.Sorted(maps.Keys(t.behind[at])) {
		if ref := t.behind[at][other]; other != name && ref != of.ref {
			return fmt.Errorf("its application's address is taken: proxy %s, which runs for %s, has its own at %s, too: give one of them another app, or its node another port", other, ref, at)
		}
	}
	if t.behind == nil {
		t.behind = map[string]map[string]proxy.Ref{}
	}
	if t.behind[at] == nil {
		t.behind[at] = map[string]proxy.Ref{}
	}
	t.behind[at][name] = of.ref
	return nil
}

// serveOnly gives back where a proxy has its application at none of these ports.
func (t *addresses) serveOnly(name string, of subscriptionKey, ports []uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var needs []string
	for _, port := range ports {
		needs = append(needs, applicationAt(of, port))
	}
	for at, by := range t.behind {
		if !slices.Contains(needs, at) {
			delete(by, name)
		}
		if len(by) == 0 {
			delete(t.behind, at)
		}
	}
}

// applicationAt is where calls to a port of a proxy go on; "" for those of a gateway.
func applicationAt(of subscriptionKey, port uint32) string {
	place, err := proxy.ParsePlace(of.shape.App)
	switch {
	case err != nil || of.shape.Alone:
		return ""
	case place.Socket != "":
		return fmt.Sprintf("%s, port %d", place, port)
	}
	return netip.AddrPortFrom(place.Addr.Unmap(), uint16(port)).String() //nolint:gosec // a listener's
}

// keep gives back, in a while, what a proxy has and does not need.
func (t *addresses) keep(proxy string, needs []netip.AddrPort, drain time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, by := range t.by {
		if by.proxy == proxy && by.until.IsZero() && !slices.Contains(needs, at) {
			t.by[at] = tenure{proxy, time.Now().Add(drain)}
		}
	}
}

// granted is a set without the listeners whose address another proxy has, and which
// these are. What it has the proxy now has, too.
func (t *addresses) granted(name string, of subscriptionKey, set *ads.Set, drain time.Duration) (*ads.Set, []LeftOut, error) {
	var needs []netip.AddrPort
	var serves []uint32
	var rest []*ads.Resource
	var without []LeftOut
	for _, r := range set.Type(ads.ListenerType) {
		if at := listens(r); len(at) > 0 {
			inbound, port := strings.HasPrefix(r.Name, ingressPrefix), uint32(at[0].Port())
			err := t.free(name, at)
			if err == nil && inbound {
				err = t.serve(name, of, port)
			}
			if err == nil {
				err = t.claim(name, at)
			}
			if err != nil {
				without = append(without, LeftOut{r.Name, err.Error()})
				continue
			}
			needs = append(needs, at...)
			if inbound {
				serves = append(serves, port)
			}
		}
		rest = append(rest, r)
	}
	t.keep(name, needs, drain)
	t.serveOnly(name, of, serves)
	if without == nil {
		return set, nil, nil
	}
	others, err := ads.NewSet(rest...)
	if err != nil {
		return nil, nil, err
	}
	set, err = set.Without(ads.ListenerType).Merge(others)
	return set, without, err
}

// release gives back what a proxy has.
func (t *addresses) release(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, by := range t.by {
		if by.proxy == name {
			delete(t.by, at)
		}
	}
	for at, by := range t.behind {
		if delete(by, name); len(by) == 0 {
			delete(t.behind, at)
		}
	}
}

func overlap(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && (a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// needed is where the listeners of a set listen without which its proxy does not run: all but
// those at addresses of services, of which another proxy of the host may have some.
func needed(set *ads.Set, sh proxy.Shape) []netip.AddrPort {
	var list []netip.AddrPort
	for _, r := range set.Type(ads.ListenerType) {
		if sh.ServiceAddresses && strings.HasPrefix(r.Name, proxy.EgressListenerPrefix) && r.Name != sh.Egress.Listener() {
			continue
		}
		list = append(list, listens(r)...)
	}
	return list
}

// listens are the addresses at which a listener does, if Envoy would take it: its own first.
func listens(r *ads.Resource) []netip.AddrPort {
	var l listenerv3.Listener
	if proto.Unmarshal(r.Body, &l) != nil {
		return nil
	}
	all := []*corev3.Address{l.GetAddress()}
	for _, more := range l.GetAdditionalAddresses() {
		all = append(all, more.GetAddress())
	}
	var list []netip.AddrPort
	for _, a := range all {
		at := a.GetSocketAddress()
		addr, err := netip.ParseAddr(at.GetAddress())
		if err != nil || at.GetPortValue() > 65535 {
			continue
		}
		list = append(list, netip.AddrPortFrom(addr.Unmap(), uint16(at.GetPortValue()))) //nolint:gosec // at most 65535
	}
	return list
}
