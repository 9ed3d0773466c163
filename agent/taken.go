package agent

import (
	"fmt"
	"net/netip"
	"sync"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
)

// taken is where each supervised proxy listens. Envoys share an address and port
// that two of them want (SO_REUSEPORT), and each gets calls that are the other's:
// the second one is not started.
type taken struct {
	mu sync.Mutex
	by map[netip.AddrPort]string // the proxy's name; guarded by mu
}

// addressTaken begins the reason for which a proxy waits for another bind.
const addressTaken = "its address is taken: "

// claim takes all of at for a proxy, or nothing.
func (t *taken) claim(proxy string, at []netip.AddrPort) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first netip.AddrPort // of several, so that the reason stays the same
	for _, want := range at {
		for has, other := range t.by {
			if other != proxy && overlap(want, has) && (!first.IsValid() || has.Compare(first) < 0) {
				first = has
			}
		}
	}
	if first.IsValid() {
		return fmt.Errorf(addressTaken+"proxy %s listens on %s", t.by[first], first)
	}
	if t.by == nil {
		t.by = map[netip.AddrPort]string{}
	}
	for _, want := range at {
		t.by[want] = proxy
	}
	return nil
}

// release gives back what a proxy has.
func (t *taken) release(proxy string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, by := range t.by {
		if by == proxy {
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
		var l listenerv3.Listener
		if proto.Unmarshal(r.Body, &l) != nil {
			continue // Envoy refuses it, too
		}
		at := l.GetAddress().GetSocketAddress()
		if addr, err := netip.ParseAddr(at.GetAddress()); err == nil && at.GetPortValue() <= 65535 {
			list = append(list, netip.AddrPortFrom(addr.Unmap(), uint16(at.GetPortValue()))) //nolint:gosec // at most 65535
		}
	}
	return list
}
