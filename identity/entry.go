package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bounds of the lifetime that an Entry may ask for. The floor lets rotation be
// watched; the ceiling is what the outage promises were reckoned with.
const (
	MinTTL = time.Second
	MaxTTL = 24 * time.Hour
)

// maxHint bounds a hint: it is a word, sent with each answer.
const maxHint = 128

// NodeGroup is a set of hosts: those that were attested to have all of Selectors,
// and those whose join token named the group. Entries and bindings hang on groups and not on
// hosts, since hosts come and go.
type NodeGroup struct {
	Name      string
	Selectors Selectors
	// Addresses are ranges in which the proxies of its hosts may listen, beside the address
	// from which each host's agent connects.
	Addresses []netip.Prefix
}

// NodeGroupSpec is the spec of kind NodeGroup. Its selectors are of hosts, such as
// x509pop:subject:cn:web-01.
type NodeGroupSpec struct {
	Selectors []string `yaml:"selectors,omitempty" json:"selectors,omitempty"`
	Addresses []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
}

// Build checks the spec, the form of its selectors included. Without selectors a group has
// the hosts whose join token names it.
func (s NodeGroupSpec) Build(name string, _ spiffeid.TrustDomain) (NodeGroup, error) {
	sels, wrong := buildSelectors(s.Selectors)
	ranges, noRanges := buildRanges(s.Addresses)
	if err := errors.Join(CheckObjectName(name), wrong, noRanges); err != nil {
		return NodeGroup{}, err
	}
	return NodeGroup{Name: name, Selectors: sels, Addresses: ranges}, nil
}

// maxRanges bounds what is looked through for each endpoint.
const maxRanges = 64

// minRange is how many bits of a range are named at least: 10.0.0.0/8 is a company's, and
// what is shorter is somebody else's, too.
const minRange = 8

// nobodys are addresses that are no host's own, as others see it, in no range: loopback is
// everybody's, a link means other hosts than the next one (and 169.254.169.254 is a cloud's
// metadata), and the others name many hosts or none.
var nobodys = []struct {
	netip.Prefix

	are string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "no address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, and broadcast"},
	{netip.MustParsePrefix("::/8"), "loopback, and IPv4 in the form of IPv6"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// checkRange refuses what has nobody's addresses in it, by their name.
func checkRange(p netip.Prefix) error {
	for _, of := range nobodys {
		if of.Overlaps(p) {
			return fmt.Errorf("%s has %s in it (%s), which are no host's own as others see it", p, of.Prefix, of.are)
		}
	}
	if p.Bits() < minRange {
		return fmt.Errorf("%s is wider than /%d: name the ranges of these hosts", p, minRange)
	}
	return nil
}

// buildRanges are those of addresses, such as 10.20.0.0/16.
func buildRanges(list []string) ([]netip.Prefix, error) {
	if len(list) > maxRanges {
		return nil, NewFieldError("spec.addresses", "%d ranges, and %d are the most", len(list), maxRanges)
	}
	var ranges []netip.Prefix
	var errs []error
	for i, text := range list {
		field := fmt.Sprintf("spec.addresses[%d]", i)
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Addr().Is4In6():
			errs = append(errs, NewFieldError(field, "%s: want a range such as 10.20.0.0/16 or fd00:20::/32", Abbreviate(text)))
		case p != p.Masked():
			errs = append(errs, NewFieldError(field, "%s: it has bits beyond its length; %s is the range", text, p.Masked()))
		default:
			if err := checkRange(p); err != nil {
				errs = append(errs, NewFieldError(field, "%s", err))
				continue
			}
			ranges = append(ranges, p)
		}
	}
	return ranges, errors.Join(errs...)
}

// Fits reports whether a host with these selectors is in the group by them. A group
// without any is one for join tokens, and fits nobody.
func (g NodeGroup) Fits(has Selectors) bool {
	return len(g.Selectors) > 0 && has.Contains(g.Selectors)
}

// Entry says that a workload on a host of Group which has all of Selectors may
// hold ID.
type Entry struct {
	Name, Group string
	ID          spiffeid.ID
	Selectors   Selectors
	// TTL of its SVIDs; 0 means the authority's default.
	TTL time.Duration
	// Hint tells a workload with several identities what this one is for; may be empty.
	Hint string
	// Files are kept of it on its hosts; nil for none.
	Files *Files
}

// VirtualNodeName names a virtual node or a virtual gateway, whose identity is
// ForVirtualNode's. It is a value of this package's own, which knows no mesh and no proxy.
type VirtualNodeName struct {
	Mesh string `yaml:"mesh" json:"mesh"`
	Name string `yaml:"name" json:"name"`
	// Gateway: it is a virtual gateway. Of one mesh no two have the same name, so it
	// is in no identity.
	Gateway bool `yaml:"-" json:"-"`
}

// String is "<mesh>/<name>", for people.
func (n VirtualNodeName) String() string { return n.Mesh + "/" + n.Name }

// EntrySpec is the spec of kind Entry. The identity is either written out
// (spiffeID) or that of a virtual node.
type EntrySpec struct {
	Group       string           `yaml:"group" json:"group"`
	SPIFFEID    string           `yaml:"spiffeID,omitempty" json:"spiffeID,omitempty"`
	VirtualNode *VirtualNodeName `yaml:"virtualNode,omitempty" json:"virtualNode,omitempty"`
	Selectors   []string         `yaml:"selectors" json:"selectors"`
	TTL         string           `yaml:"ttl,omitempty" json:"ttl,omitempty"`
	Hint        string           `yaml:"hint,omitempty" json:"hint,omitempty"`
	Files       *FilesSpec       `yaml:"files,omitempty" json:"files,omitempty"`
	// DNSNames is refused, with the reason: whoever comes from SPIRE has it.
	DNSNames []string `yaml:"dnsNames,omitempty" json:"dnsNames,omitempty"`
}

// Build checks the spec and returns the Entry. What it returns lies in td and
// outside Signet's own part of it.
func (s EntrySpec) Build(name string, td spiffeid.TrustDomain) (Entry, error) {
	id, noID := s.id(td)
	selectors, noSelectors := buildWorkloadSelectors(s.Selectors)
	ttl, noTTL := ParseDuration("spec.ttl", s.TTL, 0, MinTTL, MaxTTL)
	var files *Files
	var noFiles error
	if noSelectors == nil {
		files, noFiles = s.Files.Build(selectors)
	}
	if err := errors.Join(CheckObjectName(name), checkGroup(s.Group), noID, noSelectors, noTTL, checkHint(s.Hint), s.checkDNSNames(), noFiles); err != nil {
		return Entry{}, err
	}
	return Entry{Name: name, Group: s.Group, ID: id, Selectors: selectors, TTL: ttl, Hint: s.Hint, Files: files}, nil
}

// checkDNSNames refuses them: whoever verifies a certificate with one would refuse it.
func (s EntrySpec) checkDNSNames() error {
	if len(s.DNSNames) == 0 {
		return nil
	}
	return NewFieldError("spec.dnsNames", "no certificate here has DNS names: the issuing certificate excludes every one (a critical name constraint), so that all peers would refuse it. "+
		"Leave them out, and have the peer compare the SPIFFE ID (docs/decisions/113)")
}

// checkHint: it is shown to people and compared by programs.
func checkHint(hint string) error {
	if len(hint) > maxHint || !Printable(hint) {
		return NewFieldError("spec.hint", "%s: at most %d bytes of printable text, such as internal", Abbreviate(hint), maxHint)
	}
	return nil
}

func (s EntrySpec) id(td spiffeid.TrustDomain) (spiffeid.ID, error) {
	switch {
	case s.SPIFFEID != "" && s.VirtualNode != nil:
		return spiffeid.ID{}, NewFieldError("spec.virtualNode", "not together with spiffeID: an entry has one identity")
	case s.VirtualNode != nil:
		return buildVirtualNodeID(td, *s.VirtualNode, "spec.virtualNode.mesh", "spec.virtualNode.name")
	case s.SPIFFEID != "":
		return buildOwnID(td, s.SPIFFEID)
	}
	return spiffeid.ID{}, NewFieldError("spec.spiffeID", "spiffeID or virtualNode is needed")
}

func buildOwnID(td spiffeid.TrustDomain, s string) (spiffeid.ID, error) {
	const field = "spec.spiffeID"
	id, err := ParseID(s)
	if err != nil {
		return spiffeid.ID{}, &FieldError{Path: field, Msg: err.Error()}
	}
	switch {
	case id.TrustDomain() != td:
		return spiffeid.ID{}, NewFieldError(field, "trust domain %q is not this server's %q", id.TrustDomain().Name(), td.Name())
	case id.Path() == "": // X509-SVID 3.1: a leaf's ID has a path.
		return spiffeid.ID{}, NewFieldError(field, "a workload's SPIFFE ID needs a path")
	case IsReserved(id):
		return spiffeid.ID{}, NewFieldError(field, "/%s is reserved for Signet's own agents and servers", reserved)
	}
	return id, nil
}

func buildVirtualNodeID(td spiffeid.TrustDomain, n VirtualNodeName, meshField, nameField string) (spiffeid.ID, error) {
	var errs []error
	for _, one := range []struct{ field, name string }{{meshField, n.Mesh}, {nameField, n.Name}} {
		if err := CheckName(one.name); err != nil {
			errs = append(errs, &FieldError{Path: one.field, Msg: err.Error()})
		}
	}
	if len(errs) > 0 {
		return spiffeid.ID{}, errors.Join(errs...)
	}
	id, err := ForVirtualNode(td, n.Mesh, n.Name)
	if err != nil {
		return spiffeid.ID{}, &FieldError{Path: meshField, Msg: err.Error()}
	}
	return id, nil
}

// CheckObjectName returns why an object of Signet's own kinds cannot have this name.
func CheckObjectName(name string) error {
	if err := CheckName(name); err != nil {
		return &FieldError{Path: "metadata.name", Msg: err.Error()}
	}
	return nil
}

func checkGroup(group string) error {
	if err := CheckName(group); err != nil {
		return &FieldError{Path: "spec.group", Msg: fmt.Sprintf("node group: %v", err)}
	}
	return nil
}

// ParseDuration reads an optional duration of a spec and holds it to its bounds.
func ParseDuration(field, s string, absent, least, most time.Duration) (time.Duration, error) {
	if s == "" {
		return absent, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, NewFieldError(field, "%s is not a duration such as 90s or 1h", Abbreviate(s))
	}
	if d < least || d > most {
		return 0, NewFieldError(field, "%s is out of bounds: from %s to %s", d, least, most)
	}
	return d, nil
}
