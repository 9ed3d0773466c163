package proxy

import "net/netip"

// AmongHosts reports whether an address can be a host's own, as others see it: not everybody's
// own, no group's, none of one link, of no kind that hosts do not have, and no service of a
// cloud's for each of its hosts. Of an address that stands for one of IPv4 that one is looked
// at as well: a gateway may take it out.
func AmongHosts(a netip.Addr) bool {
	if v4, ok := StandsFor(a); ok && !AmongHosts(v4) {
		return false
	}
	a = a.Unmap()
	return a.Zone() == "" && a.IsGlobalUnicast() && !within(noHosts, a) && !within(platforms, a)
}

// StandsFor returns the IPv4 address that lies in one of IPv6, which a translator or a tunnel
// takes out of it, wherever that is known.
func StandsFor(a netip.Addr) (v4 netip.Addr, ok bool) {
	if !a.Is6() || a.Is4In6() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a.WithZone("")), isISATAP(b):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFour.Contains(a.WithZone("")):
		return netip.AddrFrom4([4]byte(b[2:])), true
	}
	return netip.Addr{}, false
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052 2.1
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056 2
)

// isISATAP reports whether the interface of an address is one that names an IPv4 address, in
// whatever network it is (RFC 5214 6.1).
func isISATAP(b [16]byte) bool {
	return b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

type addresses struct {
	netip.Prefix

	name, source string
}

// noHosts are kinds of addresses that no host has, beside those of netip.Addr.IsGlobalUnicast.
var noHosts = []addresses{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network", "RFC 1122 3.2.1.3"},
	{netip.MustParsePrefix("192.0.0.0/24"), "assigned to protocols", "RFC 6890 2.2.2"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved", "RFC 1112 4"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible", "RFC 4291 2.5.5.1, deprecated"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated", "RFC 2765 2.1, of a translator that RFC 6145 replaced"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "NAT64 of a network's own", "RFC 8215; where in it the IPv4 address lies, only that network knows"},
	{netip.MustParsePrefix("100::/64"), "discarded", "RFC 6666"},
	{netip.MustParsePrefix("2001::/23"), "assigned to protocols", "RFC 2928; Teredo (RFC 4380 2.6) is a tunnel through whoever it names"},
	{netip.MustParsePrefix("fec0::/10"), "site-local", "RFC 3879"},
}

// platforms are what clouds answer at on each of their hosts, beside the link's addresses: who
// asks there gets credentials. Nothing in such an address shows it, and next to each of them
// may be somebody's hosts.
var platforms = []addresses{
	{netip.MustParsePrefix("fd00:ec2::/32"), "AWS", "the user guide of EC2: metadata, credentials, time"},
	{netip.MustParsePrefix("168.63.129.16/32"), "Azure", "its page about this address, of the agent on each machine"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "Google Cloud", "its page about the metadata server"},
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), "Oracle Cloud", "oci-python-sdk, instance_principals_security_token_signer.py"},
	{netip.MustParsePrefix("100.100.100.200/32"), "Alibaba Cloud", "its page about instance metadata"},
	{netip.MustParsePrefix("fd00:100::100:200/128"), "Alibaba Cloud", "as above"},
	{netip.MustParsePrefix("fd00:42::42/128"), "Scaleway", "cloud-init, its data source"},
	{netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"), "Akamai", "cloud-init, its data source"},
}

func within(list []addresses, a netip.Addr) bool {
	for _, of := range list {
		if of.Contains(a) {
			return true
		}
	}
	return false
}
