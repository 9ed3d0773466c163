package xds

import (
	"fmt"
	"net/netip"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
)

// serviceAddresses has a listener for each port of each backend at the service's own address,
// where a proxy is asked for it: an application calls there as if the service itself did, and
// need not know of a proxy. By HTTP they have the routes of the way out, so that a host counts
// at each of them what it counts there; by tcp they are the ways out of the same name.
func (b *builder) serviceAddresses(routes string, out []outward) {
	if !b.shape.ServiceAddresses {
		return
	}
	taken := b.taken()
	at := func(name mesh.Name, p uint32) proxy.Egress {
		e := proxy.Egress{AddrPort: netip.AddrPortFrom(b.read.addressOf(name), uint16(p))} //nolint:gosec // 1 to 65535, by its check
		if taken[e.String()] {
			b.fail(fmt.Errorf("%s is where service %s is to be called, and where this proxy or its application listens: give the proxy another bind or app, or the service another address (serviceAddresses of MeshOptions)", e, name.Name))
		}
		return e
	}
	for _, s := range b.plainFirst() {
		name := s.service.GraphName()
		if !b.read.addressOf(name).IsValid() {
			continue // its mesh gives none, or the proxy would call itself
		}
		for _, p := range portsOf(s) {
			e := at(name, p)
			b.section(e.Listener(), b.share, func() { b.add(ads.ListenerType, e.Listener(), b.outbound(e, b.egressManager(routes))) })
		}
		for _, p := range tcpPortsOf(s) {
			i := wayOutOf(out, s, p)
			if i < 0 {
				continue // nothing answers
			}
			l := b.outbound(at(name, p), b.outwardConnection(out[i]))
			b.add(ads.ListenerType, l.GetName(), l)
		}
	}
}
