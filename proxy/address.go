package proxy

import "net/netip"

// AmongHosts reports whether an address can be a host's own, as others see it: not everybody's
// own, no group's, none of one link, and no service of the platform's own for each of its hosts.
// An IPv4 address that stands in one of IPv6 is looked at as well: a gateway may take it out.
func AmongHosts(a netip.Addr) bool {
	if a = a.Unmap(); !a.IsValid() || a.Zone() != "" || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range notAmongHosts {
		if p.Contains(a) {
			return false
		}
	}
	b := a.As16()
	switch {
	case a.Is4():
		return true
	case nat64.Contains(a):
		return AmongHosts(netip.AddrFrom4([4]byte(b[12:16])))
	case sixToFour.Contains(a):
		return AmongHosts(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return true
}

var (
	notAmongHosts = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4"), // RFC 1122 3.2.1.3, RFC 1112 4
		netip.MustParsePrefix("::/96"),         // RFC 4291 2.5.5.1: an IPv4 address, deprecated
		netip.MustParsePrefix("fd00:ec2::/32"), // the services of AWS for each instance: metadata, credentials, time
	}
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052 2.1
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056 2
)
