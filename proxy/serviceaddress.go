package proxy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// DefaultServiceRange is where the addresses of a mesh's services lie, unless its options say
// otherwise: a quarter of all loopback addresses.
const DefaultServiceRange = "127.128.0.0/10"

var (
	loopback = netip.MustParsePrefix("127.0.0.0/8")
	// ordinary are loopback addresses at which hosts have something of their own.
	ordinary = netip.MustParsePrefix("127.0.0.0/16")
	// tcpWaysOut are those that [Egress.TCP] gives.
	tcpWaysOut = netip.MustParsePrefix("127.192.0.0/10")
)

// ServiceAddress is the address of a service in a mesh's range. It depends on nothing but
// these three, so that it is the same at every proxy, after a restart, in whatever order
// services come and go, and in a store that was made anew from the same manifests. Two
// services can have the same one, which is for the mesh to refuse. The range is one that
// ParseServiceRange lets pass.
func ServiceAddress(mesh, service string, within netip.Prefix) netip.Addr {
	sum := sha256.Sum256([]byte(strings.Join([]string{"signet service address", mesh, strings.ToLower(service)}, "\n")))
	network := binary.BigEndian.Uint32(within.Masked().Addr().AsSlice())
	host := binary.BigEndian.Uint32(sum[:4]) & (1<<(32-within.Bits()) - 1)
	host = host&^0xff | 1 + uint32(sum[4])%254 // neither of the ends, which some software takes for a network's own
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, network|host)))
}

// ParseServiceRange reads a range for the addresses of services.
func ParseServiceRange(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("want a range of loopback addresses such as %s, got %.64q", DefaultServiceRange, text)
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits beside its network: did you mean %s?", p, p.Masked())
	case !loopback.Overlaps(p) || p.Bits() < loopback.Bits() || p.Bits() > 24:
		return p, fmt.Errorf("want a part of %s of 256 addresses or more, such as %s, got %s: other hosts must not reach it", loopback, DefaultServiceRange, p)
	case ordinary.Overlaps(p), tcpWaysOut.Overlaps(p):
		return p, fmt.Errorf("%s overlaps %s, where hosts have services of their own, or %s, where proxies have their ways out for tcp", p, ordinary, tcpWaysOut)
	}
	return p, nil
}

// ParseServiceAddress reads an address that an operator gives a service.
func ParseServiceAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return a, fmt.Errorf("want a loopback address such as 127.128.0.1, got %.64q", text)
	case !loopback.Contains(a):
		return a, fmt.Errorf("%s is not in %s: other hosts must not reach it", a, loopback)
	case ordinary.Contains(a), tcpWaysOut.Contains(a):
		return a, fmt.Errorf("%s is in %s, where hosts have services of their own, or %s, where proxies have their ways out for tcp", a, ordinary, tcpWaysOut)
	}
	return a, nil
}

// validServiceAddresses refuses them beside a way out that is a socket: its mode and group say
// who may call out, and an address has neither.
func (s Shape) validServiceAddresses() error {
	switch {
	case !s.ServiceAddresses:
	case s.Alone:
		return errors.New("there is no application behind a virtual gateway that could call at one")
	case s.Egress.Socket != "":
		return fmt.Errorf("egress is %s, whose mode says who may call out; an address has none: give egress a loopback address, or leave service_addresses out", s.Egress)
	}
	return nil
}
