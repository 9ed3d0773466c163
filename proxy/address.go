package proxy

import "net/netip"

// AmongHosts reports whether an address can be a host's own, as others see it: not everybody's
// own, no group's, none of one link, and no service of the platform's own for each of its hosts.
// An IPv4 address that stands in one of IPv6 is looked at as well: a gateway may take it out.
func AmongHosts(a netip.Addr) bool {
	if a = a.Unmap(); !a.IsValid() || a.Zone() != "" || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, s := range special {
		if !s.has(a) {
			continue
		}
		b := a.As16()
		if s.inner == 0 || !AmongHosts(netip.AddrFrom4([4]byte(b[s.inner:s.inner+4]))) {
			return false
		}
	}
	return true
}

// special are addresses that are no host's, or that stand for an IPv4 address.
var special = []struct {
	name, source string
	has          func(netip.Addr) bool
	inner        int // the byte at which that IPv4 address lies; 0 where no host has such an address
}{
	{"this network", "RFC 1122 3.2.1.3", in("0.0.0.0/8"), 0},
	{"reserved", "RFC 1112 4", in("240.0.0.0/4"), 0},
	{"IPv4-compatible", "RFC 4291 2.5.5.1, deprecated", in("::/96"), 0},
	{"IPv4-translated", "RFC 2765 2.1, of a translator that RFC 6145 replaced", in("::ffff:0:0:0/96"), 0},
	{"NAT64", "RFC 6052 2.1", in("64:ff9b::/96"), 12},
	{"NAT64 of a network's own", "RFC 8215; where in it the IPv4 address lies, only that network knows", in("64:ff9b:1::/48"), 0},
	{"6to4", "RFC 3056 2", in("2002::/16"), 2},
	{"Teredo", "RFC 4380 2.6, a tunnel through whoever it names", in("2001::/32"), 0},
	{"ISATAP", "RFC 5214 6.1", isISATAP, 12},
	{"site-local", "RFC 3879", in("fec0::/10"), 0},
	{"services of AWS for each instance", "the user guide of EC2: metadata, credentials, time", in("fd00:ec2::/32"), 0},
}

func in(prefix string) func(netip.Addr) bool { return netip.MustParsePrefix(prefix).Contains }

// isISATAP reports whether the interface of an address is one that names an IPv4 address, in
// whatever network it is.
func isISATAP(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}
