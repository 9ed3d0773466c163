package relay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
)

// addresses is where each supervised proxy listens. Envoys share an address and port
// that two of them want (SO_REUSEPORT), and each gets calls that are the other's:
// the second one is not started, and where it runs it is not told of the listener.
type addresses struct {
	mu sync.Mutex
	by map[netip.AddrPort]tenure // guarded by mu
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
	if t.by == nil {
		t.by = map[netip.AddrPort]tenure{}
	}
	for _, address := range at {
		t.by[address] = tenure{proxy: proxy}
	}
	return nil
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
func (t *addresses) granted(proxy string, set *ads.Set, drain time.Duration) (*ads.Set, string, error) {
	var needs []netip.AddrPort
	var rest []*ads.Resource
	var without []string
	for _, r := range set.Type(ads.ListenerType) {
		if at, ok := listens(r); ok {
			if err := t.claim(proxy, []netip.AddrPort{at}); err != nil {
				without = append(without, fmt.Sprintf("without listener %s, %v", r.Name, err))
				continue
			}
			needs = append(needs, at)
		}
		rest = append(rest, r)
	}
	t.keep(proxy, needs, drain)
	if without == nil {
		return set, "", nil
	}
	others, err := ads.NewSet(rest...)
	if err != nil {
		return nil, "", err
	}
	set, err = set.Without(ads.ListenerType).Merge(others)
	return set, strings.Join(without, "; "), err
}

// release gives back what a proxy has.
func (t *addresses) release(proxy string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, by := range t.by {
		if by.proxy == proxy {
			delete(t.by, at)
		}
	}
}

func overlap(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && (a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// listening is where the listeners of a set listen.
func listening(set *ads.Set) []netip.AddrPort {
	var list []netip.AddrPort
	for _, r := range set.Type(ads.ListenerType) {
		if at, ok := listens(r); ok {
			list = append(list, at)
		}
	}
	return list
}

// listens is where a listener does, if Envoy would take it.
func listens(r *ads.Resource) (netip.AddrPort, bool) {
	var l listenerv3.Listener
	if proto.Unmarshal(r.Body, &l) != nil {
		return netip.AddrPort{}, false
	}
	at := l.GetAddress().GetSocketAddress()
	addr, err := netip.ParseAddr(at.GetAddress())
	if err != nil || at.GetPortValue() > 65535 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(at.GetPortValue())), true //nolint:gosec // at most 65535
}
