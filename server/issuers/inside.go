package issuers

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"

	"signet.example/proxy"
)

// insideRanges are addresses where no issuer is although hosts have them (proxy.AmongHosts).
// The private ranges of IPv4 are not among them: an issuer of one's own is found there by its name.
var insideRanges = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598: shared by a provider's customers
	netip.MustParsePrefix("198.18.0.0/15"), // RFC 2544: benchmarks
	netip.MustParsePrefix("fc00::/7"),      // RFC 4193: unique local
}

// ownNAT64 is that of a network's own (RFC 8215): who has one finds issuers by it, in general by
// the last four bytes.
var ownNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")

// inside reports whether an address leads into this host, to a metadata service,
// or to where no issuer can be, also in the forms that translators of addresses know.
func inside(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ownNAT64.Contains(ip) {
		return inside(netip.AddrFrom4([4]byte(ip.AsSlice()[12:])))
	}
	if v4, ok := proxy.StandsFor(ip); ok && inside(v4) {
		return true
	}
	return !proxy.AmongHosts(ip) || slices.ContainsFunc(insideRanges, func(p netip.Prefix) bool { return p.Contains(ip) })
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
