package issuers

import (
	"fmt"
	"net/netip"
	"net/url"
)

// insideRanges are addresses where no issuer is, beyond those that netip.Addr
// names, and where clouds serve metadata. The private ranges of IPv4 are not
// among them: an issuer of one's own is found there by its name.
var insideRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // RFC 1122: this host
	netip.MustParsePrefix("100.64.0.0/10"),    // RFC 6598: shared by a provider's customers; 100.100.100.200 is a metadata service
	netip.MustParsePrefix("192.0.0.0/24"),     // RFC 6890: protocol assignments; 192.0.0.192 is a metadata service
	netip.MustParsePrefix("198.18.0.0/15"),    // RFC 2544: benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),      // RFC 1112: reserved, with the broadcast address
	netip.MustParsePrefix("168.63.129.16/32"), // a metadata service
	netip.MustParsePrefix("fc00::/7"),         // RFC 4193: unique local; fd00:ec2::254 and others are metadata services
	netip.MustParsePrefix("fec0::/10"),        // RFC 3879: what site-local was
	netip.MustParsePrefix("100::/64"),         // RFC 6666: discarded
}

// embedded are ranges of IPv6 in which an IPv4 address lies, and at which byte.
var embedded = []struct {
	netip.Prefix
	at int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},   // RFC 6052: NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // RFC 8215: NAT64 of a network's own
	{netip.MustParsePrefix("2002::/16"), 2},       // RFC 3056: 6to4
	{netip.MustParsePrefix("::/96"), 12},          // RFC 4291 2.5.5.1: IPv4-compatible
}

// inside reports whether an address leads into this host, to a metadata service,
// or to where no issuer can be, also in the forms that translators of addresses know.
func inside(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return true
	}
	for _, r := range insideRanges {
		if r.Contains(ip) {
			return true
		}
	}
	for _, e := range embedded {
		if e.Contains(ip) {
			b := ip.As16()
			return inside(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return false
}

// meantInside reports whether the operator wrote an address, or localhost, so that
// it may be one of inside; a link-local one is never meant.
func meantInside(u *url.URL) bool {
	literal, err := literalOf(u.Hostname())
	return err == nil && !literal.IsLinkLocalUnicast() && !literal.IsUnspecified() || u.Hostname() == "localhost"
}

// refusedInside is the error for an address that an issuer's URL leads to; nil if it may.
func refusedInside(u *url.URL, a netip.Addr) error {
	if meantInside(u) || !inside(a) {
		return nil
	}
	return fmt.Errorf("%s is not an address that an issuer's name may lead to: write it as the address in jwksURL where it is meant", a)
}

// literalOf takes an IP address as IPv4 where it is one, without a zone.
func literalOf(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	return a.Unmap().WithZone(""), err
}
