package relay

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"signet.example/ads"
	"signet.example/attestation"
	"signet.example/proxy"
)

// ComesBackWithin is how long a foreign proxy stays registered, as unhealthy, whose stream
// has ended or that listens no more. Envoy asks again after five seconds at most
// (docs/ENVOY.md), and who has no other endpoint calls an unhealthy one.
const ComesBackWithin = 10 * time.Second

// Foreign is a proxy that the agent did not start, and that others may call.
type Foreign struct {
	// Name is of its Binding and its address. No proxy of the configuration has such a one.
	Name  string
	Ref   proxy.Ref
	Shape proxy.Shape
	View  *View
	Ports []uint32
	// Healthy: it has a stream, has answered all that it was sent, and listens.
	Healthy bool
	// Left is why it has not all of its ports, "" where it has.
	Left string
}

// presence is where a foreign proxy was seen to listen.
type presence struct {
	mu    sync.Mutex
	ports []uint32
	lost  time.Time // when it was not seen any more, zero while it is
}

// see takes where it is seen to listen now, and returns where it is to be called.
func (p *presence) see(ports []uint32, now time.Time) (called []uint32, healthy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(ports) > 0:
		p.ports, p.lost = ports, time.Time{}
	case p.lost.IsZero():
		p.lost = now
	case now.Sub(p.lost) >= ComesBackWithin:
		p.ports = nil
	}
	return p.ports, len(ports) > 0
}

// Foreign lists the proxies that the agent did not start, by name. What such a proxy says
// is not enough: somebody of its user listens where it says that it does, on an address of
// this network namespace, and it is there itself.
func (r *Relay) Foreign() []Foreign {
	var list []Foreign
	look := false
	for v, users := range r.foreignViews() {
		f := Foreign{Name: v.foreignName(), Ref: v.sub.key.ref, Shape: v.sub.key.shape, View: v}
		ports, silent, unknown := v.listening(users)
		f.Ports, f.Healthy = v.presence.see(ports, time.Now())
		f.Ports, f.Left = r.addresses.leftTo(f.Shape.Bind, f.Ports)
		f.Left = cmp.Or(f.Left, unknown)
		look = look || silent || len(f.Ports) > 0
		if len(f.Ports) > 0 || f.Left != "" {
			list = append(list, f)
		}
	}
	r.looks.Store(look)
	slices.SortFunc(list, func(a, b Foreign) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Shape.App, b.Shape.App))
	})
	return slices.DeleteFunc(list, func(f Foreign) bool { return !f.Healthy && slices.ContainsFunc(list, f.succeeded) })
}

// succeeded reports whether o, which is there, has the place of f, which is not any more.
func (f Foreign) succeeded(o Foreign) bool {
	return o.Healthy && o.Shape.Bind == f.Shape.Bind && slices.ContainsFunc(f.Ports, func(p uint32) bool { return slices.Contains(o.Ports, p) })
}

// Looks reports whether there were foreign proxies when Foreign was called last: nobody is told
// when they listen, or listen no more.
func (r *Relay) Looks() bool { return r.looks.Load() }

// foreignViews are those of the foreign proxies, each with the users of the processes in
// this network namespace that follow it.
func (r *Relay) foreignViews() map[*View][]uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	views := map[*View][]uint32{}
	for k, v := range r.views {
		if k.own == "" {
			views[v] = nil
		}
	}
	for g := range r.streams {
		v := g.follows()
		if _, ok := views[v]; ok {
			views[v] = append(views[v], g.peer.UID())
		}
	}
	return views
}

func (v *View) foreignName() string {
	return strings.TrimPrefix(v.as.Entry, "binding/") + "@" + v.sub.key.shape.Bind
}

// listening are the ports that proxies of these users have taken, and on which one of them
// listens; silent reports whether there are others, on which none does, and unknown is why
// nobody can say of one of these whose it is.
func (v *View) listening(users []uint32) (ports []uint32, silent bool, unknown string) {
	if len(users) == 0 {
		return nil, false, ""
	}
	has, _ := v.view.Holding(ads.ListenerType)
	for _, l := range has {
		all := listens(l)
		if len(all) == 0 || !strings.HasPrefix(l.Name, ingressPrefix) {
			continue
		}
		at := all[0]
		owners, err := attestation.ListenerOwners(at)
		if err == nil {
			err = heldBy(owners, users)
		}
		if err == nil {
			ports = append(ports, uint32(at.Port()))
			continue
		}
		silent = true
		if errors.Is(err, errUnknownUser) {
			unknown = cmp.Or(unknown, fmt.Sprintf("who listens on %s %s", at, err))
		}
	}
	slices.Sort(ports)
	return ports, silent, unknown
}

// errUnknownUser is returned by heldBy where a listener could be anybody's.
var errUnknownUser = errors.New("has no number in the agent's user namespace (the kernel writes 65534): run it as a user who has one")

// heldBy returns nil if one of these users is the owner of one of the sockets. An owner without
// a number here is none of them, even if one of them has none either: all who have none look
// the same.
func heldBy(owners []attestation.SocketOwner, users []uint32) error {
	err := attestation.ErrNoOwner
	for _, o := range owners {
		switch {
		case !o.Known():
			err = errUnknownUser
		case slices.Contains(users, o.UID):
			return nil
		}
	}
	return err
}

// leftTo are those of the ports of an address that no proxy of the configuration has, and
// why not all.
func (t *addresses) leftTo(bind string, ports []uint32) (left []uint32, why string) {
	a, err := netip.ParseAddr(bind)
	if err != nil {
		return nil, ""
	}
	for _, p := range ports {
		if err := t.free("", []netip.AddrPort{netip.AddrPortFrom(a, uint16(p))}); err != nil { //nolint:gosec // a listener's
			why = err.Error()
			continue
		}
		left = append(left, p)
	}
	return left, why
}
