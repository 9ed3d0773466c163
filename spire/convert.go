package spire

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/attestation"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/manifest"
)

// Options of a conversion.
type Options struct {
	// TrustDomain is that of the manifests; "" is SPIRE's own.
	TrustDomain string
	// Groups are NodeGroups in the place of parents, by the parent's SPIFFE ID.
	Groups map[string]string
	// APIVersion of Signet's own kinds.
	APIVersion string
}

// State is what became of a registration.
type State string

// The states. Partial is without what Lost has; of one that is refused there is no manifest.
const (
	Whole   State = "whole"
	Partial State = "partial"
	Refused State = "refused"
)

// Object is what became of a registration, or of the parent of some.
type Object struct {
	State State `json:"state"`
	// Kind and Name of the manifest: Entry or NodeGroup. Name is empty where it has none.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// ID and SPIFFEID are SPIRE's, File and Line where it stands.
	ID       string `json:"id"`
	SPIFFEID string `json:"spiffeID"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	// Lost are fields that the manifest does not have, Why is why it is refused, each as
	// "field: reason".
	Lost []string `json:"lost"`
	Why  []string `json:"why"`
	// Notes are what to do or to know.
	Notes    []string `json:"notes"`
	Manifest string   `json:"manifest"`
}

// Report is what became of all, NodeGroups first.
type Report struct {
	Objects []*Object `json:"objects"`
	// Counts are how many there are in each state.
	Counts map[State]int `json:"counts"`
}

// Done reports whether all of it is whole.
func (r *Report) Done() bool { return r.Counts[Whole] == len(r.Objects) }

// converter is one conversion.
type converter struct {
	Options

	from, to spiffeid.TrustDomain
	report   *Report
	groups   map[string]string // by the parent's id
	refused  map[string]bool   // parents of which no NodeGroup came
	names    map[string]int    // how many registrations want a name
}

// serverPath is the parent of node aliases, joinedPath begins the ids of agents that joined by a
// token, and reservedPath all that are SPIRE's own.
const (
	serverPath   = "/spire/server"
	joinedPath   = "/spire/agent/join_token/"
	reservedPath = "/spire"
)

// Convert turns registrations into manifests.
func Convert(list []Registration, o Options) (*Report, error) {
	c := &converter{Options: o, report: &Report{Objects: []*Object{}, Counts: map[State]int{}}, groups: map[string]string{}, refused: map[string]bool{}, names: map[string]int{}}
	if err := c.domains(list); err != nil {
		return nil, err
	}
	for parent, group := range o.Groups {
		if err := identity.CheckName(group); err != nil {
			return nil, fmt.Errorf("NodeGroup of %s: %w", identity.Abbreviate(parent), err)
		}
		c.groups[parent] = group
	}
	for _, r := range list {
		if c.isAlias(r) {
			c.names["NodeGroup "+baseName(r.SPIFFEID)]++
		} else {
			c.names["Entry "+baseName(r.SPIFFEID)]++
		}
	}
	var entries []*Object
	for _, r := range list {
		if c.isAlias(r) {
			c.alias(r)
		}
	}
	for _, r := range list {
		if !c.isAlias(r) {
			entries = append(entries, c.entry(r))
		}
	}
	c.report.Objects = append(c.report.Objects, entries...)
	for _, x := range c.report.Objects {
		c.report.Counts[x.State]++
	}
	return c.report, nil
}

// domains finds SPIRE's trust domain, which is that of the first id, and ours.
func (c *converter) domains(list []Registration) error {
	for _, r := range list {
		if id, err := identity.ParseID(r.SPIFFEID); err == nil {
			c.from = id.TrustDomain()
			break
		}
	}
	c.to = c.from
	if c.TrustDomain == "" {
		return nil
	}
	var err error
	c.to, err = identity.ParseTrustDomain(c.TrustDomain)
	return err
}

// pathOf is the path of an id of SPIRE's own trust domain, "" of another one.
func (c *converter) pathOf(id string) string {
	parsed, err := identity.ParseID(id)
	if err != nil || parsed.TrustDomain() != c.from {
		return ""
	}
	return parsed.Path()
}

func (c *converter) isAlias(r Registration) bool { return c.pathOf(r.ParentID) == serverPath }

// baseName is the name that an object has if no other wants it, by the path of an id.
func baseName(id string) string {
	parsed, err := identity.ParseID(id)
	if err != nil {
		return ""
	}
	name := strings.Trim(strings.ReplaceAll(parsed.Path(), "/", "-"), "-")
	return name[:min(len(name), mostName)]
}

// mostName leaves room for what tells two apart.
const mostName = 200

// nameOf is the same for the same registration, however many others there are of another path.
func (c *converter) nameOf(kind string, r Registration) string {
	base := baseName(r.SPIFFEID)
	if c.names[kind+" "+base] < 2 {
		return base
	}
	sorted := slices.Sorted(slices.Values(r.Selectors))
	sum := sha256.Sum256([]byte(strings.Join(append([]string{r.ParentID, r.SPIFFEID}, sorted...), "\x00")))
	return base + "-" + hex.EncodeToString(sum[:4])
}

func (c *converter) object(kind string, r Registration) *Object {
	return &Object{State: Whole, Kind: kind, Name: c.nameOf(kind, r), ID: r.ID, SPIFFEID: r.SPIFFEID, File: r.File, Line: r.Line, Lost: []string{}, Why: slices.Clone(append([]string{}, r.wrong...)), Notes: []string{}}
}

func (x *Object) refuse(field, format string, args ...any) {
	x.Why = append(x.Why, field+": "+fmt.Sprintf(format, args...))
}

func (x *Object) lose(field, format string, args ...any) {
	x.Lost = append(x.Lost, field+": "+fmt.Sprintf(format, args...))
}

// spireFields are what SPIRE calls what an error of ours is about.
var spireFields = strings.NewReplacer("spec.spiffeID", "spiffe_id", "spec.ttl", "x509_svid_ttl", "spec.hint", "hint", "spec.selectors", "selectors", "spec.group", "parent_id", "metadata.name", "spiffe_id")

// refuseAll takes down errors at fields of a spec.
func (x *Object) refuseAll(err error) {
	for _, e := range identity.FieldErrors(err) {
		x.refuse(spireFields.Replace(e.Path), "%s", e.Msg)
	}
}

// end fills in the manifest, or none.
func (x *Object) end(apiVersion string, spec any) *Object {
	switch {
	case len(x.Why) > 0:
		x.State = Refused
		return x
	case len(x.Lost) > 0:
		x.State = Partial
	}
	var b strings.Builder
	for _, lost := range x.Lost {
		b.WriteString("# not translated: " + oneLine(lost) + "\n")
	}
	b.Write(manifest.Encode(apiVersion, x.Kind, manifest.Meta{Name: x.Name}, spec))
	x.Manifest = b.String()
	return x
}

// oneLine keeps what others wrote in a comment.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

// ours is an id in the trust domain of the manifests.
func (c *converter) ours(x *Object, r Registration) string {
	id, err := identity.ParseID(r.SPIFFEID)
	switch {
	case err != nil:
		x.refuse("spiffe_id", "%v", err)
	case id.TrustDomain() != c.from:
		x.refuse("spiffe_id", "is of trust domain %s, and the others are of %s", id.TrustDomain().Name(), c.from.Name())
	case id.Path() == reservedPath || strings.HasPrefix(id.Path(), reservedPath+"/"):
		x.refuse("spiffe_id", "is one of SPIRE's own servers and agents")
	default:
		return c.to.IDString() + id.Path()
	}
	return ""
}

// alias makes a NodeGroup of a node alias: a registration of hosts, by what they were attested by.
func (c *converter) alias(r Registration) {
	x := c.object("NodeGroup", r)
	c.ours(x, r)
	own(x, r)
	spec := identity.NodeGroupSpec{Selectors: r.Selectors}
	if len(r.Selectors) == 0 {
		x.refuse("selectors", "there is none, and a NodeGroup without selectors is of hosts with a join token")
	}
	group, err := spec.Build(x.Name, c.to)
	if err == nil {
		err = nodes.CheckGroup(group)
	}
	x.refuseAll(err)
	if r.X509TTL != 0 {
		x.Notes = append(x.Notes, "x509_svid_ttl: agents have SVIDs of their own lifetime (lifetimes.agent of the server's file)")
	}
	c.left(x, r)
	if name := c.groups[r.SPIFFEID]; name != "" { // as it was asked for
		x.State, x.Notes, x.Why, x.Lost = Whole, append(x.Notes, "is NodeGroup "+name+", which was named for it"), []string{}, []string{}
		x.Name = name
		c.report.Objects = append(c.report.Objects, x)
		return
	}
	x.end(c.APIVersion, &spec)
	if x.State == Refused {
		c.refused[r.SPIFFEID] = true
	} else if was, twice := c.groups[r.SPIFFEID]; twice && was != x.Name { // hosts that any of them fits
		x.refuse("spiffe_id", "two node aliases have it, and hosts of either are its parents: a NodeGroup has one set of selectors; --group names one for it")
		x.end(c.APIVersion, &spec)
	} else {
		c.groups[r.SPIFFEID] = x.Name
	}
	c.report.Objects = append(c.report.Objects, x)
}

// own refuses what nothing here stands for: an identity without it would be another grant.
func own(x *Object, r Registration) {
	if r.Downstream {
		x.refuse("downstream", "a SPIRE server below this one is a certificate authority, and none hangs on an Entry here")
	}
	if r.StoreSVID {
		x.refuse("store_svid", "no plugin stores SVIDs at a cloud's: keys stay on their host")
	}
	if r.ExpiresAt != 0 {
		x.refuse("expires_at", "it ends %s, and an Entry ends when it is deleted: it would be longer than it was to be", time.Unix(r.ExpiresAt, 0).UTC().Format(time.RFC3339))
	}
}

// left takes down what a manifest is without and good for.
func (c *converter) left(x *Object, r Registration) {
	if r.Admin {
		x.lose("admin", "no workload administers the server: who may is not a matter of its Entry")
	}
	if len(r.FederatesWith) > 0 {
		x.lose("federates_with", "%s: bundles of other trust domains are not served yet: it cannot verify peers there", joined(r.FederatesWith))
	}
	if len(r.DNSNames) > 0 {
		x.lose("dns_names", "%s: its certificates have no DNS names", joined(r.DNSNames))
	}
	if r.JWTTTL != 0 {
		x.lose("jwt_svid_ttl", "%d s: JWT-SVIDs have no lifetime of their own for each Entry", r.JWTTTL)
	}
	if r.IncludeJTI {
		x.lose("additional_attributes.jwt_svid_include_jti", "is not a matter of an Entry")
	}
	if r.Prefetch {
		x.Notes = append(x.Notes, "additional_attributes.disable_x509_svid_prefetch: is so for all: an SVID is issued when a workload asks for it first")
	}
}

func joined(list []string) string {
	text := strings.Join(list[:min(len(list), 8)], ", ")
	if len(list) > 8 {
		text += fmt.Sprintf(" and %d more", len(list)-8)
	}
	return text
}

func (c *converter) entry(r Registration) *Object {
	x := c.object("Entry", r)
	spec := identity.EntrySpec{SPIFFEID: c.ours(x, r), Selectors: r.Selectors, Hint: r.Hint}
	spec.Group = c.group(x, r)
	own(x, r)
	if r.X509TTL != 0 {
		spec.TTL = seconds(r.X509TTL)
	}
	check := spec
	check.Group = cmp.Or(spec.Group, "refused-above")
	if spec.SPIFFEID == "" {
		check.SPIFFEID = c.to.IDString() + "/refused-above"
	}
	name := cmp.Or(x.Name, "refused-above")
	if !c.to.IsZero() {
		_, err := check.Build(name, c.to)
		x.refuseAll(errors.Join(err, attestation.CheckWorkload(r.Selectors)))
	}
	c.left(x, r)
	return x.end(c.APIVersion, &spec)
}

// seconds is a TTL; one of more than a time.Duration has is out of bounds all the same.
func seconds(n int64) string {
	return (time.Duration(min(n, int64(1<<31))) * time.Second).String()
}

// group is the NodeGroup of a registration's parent.
func (c *converter) group(x *Object, r Registration) string {
	if group := c.groups[r.ParentID]; group != "" && !c.refused[r.ParentID] {
		return group
	}
	path := c.pathOf(r.ParentID)
	token, isToken := strings.CutPrefix(path, joinedPath)
	switch {
	case isToken && token != "" && !strings.Contains(token, "/"):
		return c.tokenGroup(r, token)
	case c.refused[r.ParentID]:
		x.refuse("parent_id", "%s is a node alias that did not become a NodeGroup, see there; --group '%s=NAME' names one", r.ParentID, r.ParentID)
	case strings.HasPrefix(path, "/spire/agent/"):
		x.refuse("parent_id", "%s is one agent, and Entries hang on NodeGroups; --group '%s=NAME' names the one of its host", r.ParentID, r.ParentID)
	default:
		x.refuse("parent_id", "%s is no node alias of what was read; --group '%s=NAME' names a NodeGroup for it", cmp.Or(oneLine(r.ParentID), "none"), cmp.Or(oneLine(r.ParentID), "SPIFFE-ID"))
	}
	return ""
}

// tokenGroup makes a NodeGroup for the host that joined by a token, of those who join by a token for
// it. The token is not repeated: it may not have been used.
func (c *converter) tokenGroup(r Registration, token string) string {
	sum := sha256.Sum256([]byte(token))
	name := "join-token-" + hex.EncodeToString(sum[:4])
	if c.groups[r.ParentID] == "" {
		x := &Object{State: Whole, Kind: "NodeGroup", Name: name, SPIFFEID: "spiffe://" + c.from.Name() + joinedPath + "…", File: r.File, Line: r.Line, Lost: []string{}, Why: []string{}, Notes: []string{"is of the host that joins by a token for it: signet token create --group " + name}}
		c.report.Objects = append(c.report.Objects, x.end(c.APIVersion, &identity.NodeGroupSpec{}))
		c.groups[r.ParentID] = name
	}
	return name
}

// Written are the manifests, NodeGroups first: of what is whole, and with partial of what is without
// something, too. A NodeGroup is good without what it lost: it says which hosts are in it.
func (r *Report) Written(partial bool) []*Object {
	var list []*Object
	for _, x := range r.Objects {
		if x.Manifest != "" && (x.State == Whole || partial || x.Kind == "NodeGroup") {
			list = append(list, x)
		}
	}
	return list
}
