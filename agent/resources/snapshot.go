package resources

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/proxy"
)

// Snapshot is all that the agent was told in Signet's own resources, at one
// moment. Immutable.
type Snapshot struct {
	TrustDomain spiffeid.TrustDomain
	// Entries and Bindings are those of this host's group, without banned identities.
	Entries  []identity.Entry
	Bindings []identity.Binding
	// IDs is the identity that each entry or binding grants, by name.
	IDs   map[string]spiffeid.ID
	users map[uint32]bool // that an entry or binding names
	// since is the revision in which each of them was first there, by name.
	since    map[string]uint64
	Policies []*api.PolicyRevision
	// Newest is the id of the revision that is in force or about to be.
	Newest  string
	Issuers []*api.JWTIssuer
	Bans    map[string]bool
	// Own returns what a proxy that the agent starts runs for; nil: it starts none.
	Own func(name string) (proxy.Ref, bool)
	// Problems are resources that could not be used, for `signet check`.
	Problems []string
	check    Check
}

// Check refuses the selectors of an entry or binding that nobody here can have.
type Check func(selectors []string, binding bool) error

// OfProcesses is the Check of a host, which tells its processes apart.
func OfProcesses(selectors []string, _ bool) error { return attestation.CheckWorkload(selectors) }

// Types is what the agent subscribes to for itself.
var Types = []string{ads.EntryType, ads.BundleType, ads.PolicyType, ads.JWTIssuerType, ads.BanType}

// New reads a complete set of the agent's own resources; old is the state
// before, or nil. A resource that cannot be used costs itself and no other one,
// and is named.
func New(td spiffeid.TrustDomain, set *ads.Set, view *ads.Resource, old *Snapshot, check Check) *Snapshot {
	s := &Snapshot{check: check, TrustDomain: td, IDs: map[string]spiffeid.ID{}, since: map[string]uint64{}, Bans: map[string]bool{}, users: map[uint32]bool{}}
	each(s, set, ads.BanType, func(b *api.Ban) error {
		s.Bans[b.GetSpiffeId()] = true
		return nil
	})
	each(s, set, ads.EntryType, s.addEntry)
	each(s, set, ads.PolicyType, func(p *api.PolicyRevision) error {
		s.Policies = append(s.Policies, p)
		return nil
	})
	each(s, set, ads.JWTIssuerType, func(j *api.JWTIssuer) error {
		s.Issuers = append(s.Issuers, j)
		return nil
	})
	s.Newest = s.newestRevision(view, old)
	return s
}

// newestRevision is what the view says; where it says nothing, the revision that
// was not there before.
func (s *Snapshot) newestRevision(view *ads.Resource, old *Snapshot) string {
	var v api.View
	if view != nil && proto.Unmarshal(view.Body, &v) == nil && v.GetPolicyRevision() != "" {
		return v.GetPolicyRevision()
	}
	known := map[string]bool{}
	newest := ""
	if old != nil {
		for _, p := range old.Policies {
			known[p.GetId()] = true
		}
	}
	for _, p := range s.Policies {
		if newest == "" || !known[p.GetId()] || old != nil && p.GetId() == old.Newest && known[newest] {
			newest = p.GetId()
		}
	}
	return newest
}

func (s *Snapshot) addEntry(e *api.Entry) error {
	plain := identity.Plain{
		Name: e.GetName(), SPIFFEID: e.GetSpiffeId(), Selectors: e.GetSelectors(), TTL: e.GetTtl().AsDuration(),
		VirtualNode: identity.VirtualNodeName{Mesh: e.GetVirtualNode().GetMesh(), Name: e.GetVirtualNode().GetName(), Gateway: e.GetVirtualNode().GetGateway()}, Applications: e.GetApplications(),
		Hint: e.GetHint(),
	}
	if f := e.GetFiles(); f != nil {
		plain.Files = &identity.Files{Folder: f.GetFolder(), Group: f.GetGroup(), Layouts: f.GetLayouts(), Command: f.GetCommand()}
	}
	if s.Bans[plain.SPIFFEID] {
		return nil
	}
	if plain.Name == svids.Own {
		return errors.New("it has no name")
	}
	if err := s.check(plain.Selectors, plain.IsBinding()); err != nil {
		return fmt.Errorf("entry %q: %w", plain.Name, err)
	}
	s.since[plain.Name] = e.GetSince()
	if !plain.IsBinding() {
		entry, err := plain.Entry(s.TrustDomain)
		if err != nil {
			return err
		}
		s.Entries = append(s.Entries, entry)
		s.nameUsers(entry.Selectors)
		s.IDs[entry.Name] = entry.ID
		return nil
	}
	binding, err := plain.Binding(s.TrustDomain)
	if err != nil {
		return err
	}
	id, err := binding.ID(s.TrustDomain)
	if err != nil {
		return err
	}
	s.Bindings = append(s.Bindings, binding)
	s.nameUsers(binding.Selectors)
	s.IDs[binding.Name] = id
	return nil
}

func (s *Snapshot) nameUsers(selectors identity.Selectors) {
	for _, sel := range selectors {
		text, ok := strings.CutPrefix(sel.String(), "unix:uid:")
		if uid, err := strconv.ParseUint(text, 10, 32); ok && err == nil {
			s.users[uint32(uid)] = true
		}
	}
}

// NamesUser reports whether an entry or binding asks for processes of this user.
func (s *Snapshot) NamesUser(uid uint32) bool { return s.users[uid] }

// each calls use with every resource of a type, decoded.
func each[M any, P interface {
	*M
	proto.Message
}](s *Snapshot, set *ads.Set, typeURL string, use func(P) error) {
	for _, r := range set.Type(typeURL) {
		m := P(new(M))
		err := proto.Unmarshal(r.Body, m)
		if err == nil {
			err = use(m)
		}
		if err != nil {
			s.Problems = append(s.Problems, fmt.Sprintf("%T %s: %v", m, r.Name, err))
		}
	}
}

// Grants reports whether the entry or binding exists and grants this identity.
func (s *Snapshot) Grants(w svids.Name) bool {
	id, ok := s.IDs[w.Entry]
	return ok && id == w.ID
}

// BindingNamed finds a binding by its name; a nil Snapshot has none.
func (s *Snapshot) BindingNamed(name string) (identity.Binding, bool) {
	if s == nil {
		return identity.Binding{}, false
	}
	for _, b := range s.Bindings {
		if b.Name == name {
			return b, true
		}
	}
	return identity.Binding{}, false
}

// Binding returns the binding that lets a peer with these selectors be the proxy
// of a virtual node. The Ref of an xDS node id selects among what the peer is
// bound to and grants nothing; so does the agent's configuration, for a proxy that
// it starts. The zero Ref selects nothing, and then a peer that bindings for two
// nodes fit is neither: which identity it had would be chance.
func (s *Snapshot) Binding(has identity.Selectors, ref proxy.Ref) (identity.Binding, spiffeid.ID, error) {
	none := proxy.Ref{}
	if own, ok := s.configured(ProxyName(has)); ok {
		if ref != none && ref != own {
			return identity.Binding{}, spiffeid.ID{}, ErrNotBound
		}
		ref = own
	}
	candidates := s.Bindings
	if ref != none {
		candidates = nil
		for _, b := range s.Bindings {
			if RefOf(b) == ref {
				candidates = append(candidates, b)
			}
		}
	}
	b, ok, err := identity.MatchBindings(candidates, has)
	if err != nil {
		return identity.Binding{}, spiffeid.ID{}, err
	}
	if !ok {
		return identity.Binding{}, spiffeid.ID{}, ErrNotBound
	}
	return b, s.IDs[b.Name], nil
}

// RefsOf is what a peer with these selectors may be the proxy of, in order.
func (s *Snapshot) RefsOf(has identity.Selectors) []proxy.Ref {
	var list []proxy.Ref
	for _, b := range identity.FittingBindings(s.Bindings, has) {
		list = append(list, RefOf(b))
	}
	slices.SortFunc(list, proxy.Ref.Compare)
	return slices.Compact(list)
}

// Fits reports whether a peer with these selectors may be the proxy of any virtual node.
func (s *Snapshot) Fits(has identity.Selectors) bool {
	_, ok, err := identity.MatchBindings(s.Bindings, has)
	return ok || err != nil // several
}

// Nearest is the entry or binding that a peer with these selectors comes closest to, and what
// it lacks of it: for a log, so that whoever wrote the entry sees which of its selectors does
// not hold. "" where the peer has none of any.
func (s *Snapshot) Nearest(has identity.Selectors) (name string, lacks identity.Selectors) {
	most := 0
	look := func(of string, wanted identity.Selectors) {
		lacking := slices.DeleteFunc(slices.Clone(wanted), func(w identity.Selector) bool { return slices.Contains(has, w) })
		held := len(wanted) - len(lacking)
		closer := cmp.Or(cmp.Compare(held, most), cmp.Compare(len(lacks), len(lacking)), cmp.Compare(name, of))
		if held > 0 && len(lacking) > 0 && (name == "" || closer > 0) {
			name, lacks, most = of, lacking, held
		}
	}
	for _, e := range s.Entries {
		look(e.Name, e.Selectors)
	}
	for _, b := range s.Bindings {
		look(b.Name, b.Selectors)
	}
	return name, lacks
}

// WantsHash reports whether an entry or binding that a peer with these selectors
// might fit asks for the hash of its program.
func (s *Snapshot) WantsHash(others identity.Selectors) bool {
	asks := func(wanted identity.Selectors) bool {
		hash := false
		for _, w := range wanted {
			switch {
			case w.Type == "unix" && strings.HasPrefix(w.Value, "sha256:"):
				hash = true
			case !slices.Contains(others, w):
				return false
			}
		}
		return hash
	}
	return slices.ContainsFunc(s.Bindings, func(b identity.Binding) bool { return asks(b.Selectors) }) ||
		slices.ContainsFunc(s.Entries, func(e identity.Entry) bool { return asks(e.Selectors) })
}

// RefOf is what a binding lets a process be the proxy of.
func RefOf(b identity.Binding) proxy.Ref {
	return proxy.For(b.VirtualNode.Mesh, b.VirtualNode.Name, b.VirtualNode.Gateway)
}

// configured returns what a proxy of the agent's own configuration runs for.
func (s *Snapshot) configured(name string) (proxy.Ref, bool) {
	if name == "" || s.Own == nil {
		return proxy.Ref{}, false
	}
	return s.Own(name)
}

// ErrNotBound does not say whether there is such a virtual node: the same
// answer for "not yours" and "does not exist".
var ErrNotBound = errors.New("no binding lets this process be a proxy here")

// Identities are all that a peer with these selectors may hold: those of its
// entries, and that of its binding where exactly one fits. The first is what a
// workload takes that does not choose: the one that was there first, so that no
// new entry changes it.
func (s *Snapshot) Identities(has identity.Selectors) ([]svids.Name, error) {
	var names []svids.Name
	for _, e := range identity.MatchEntries(s.Entries, has) {
		names = append(names, svids.Name{Entry: e.Name, ID: e.ID})
	}
	b, id, err := s.Binding(has, proxy.Ref{})
	if err == nil {
		names = append(names, svids.Name{Entry: b.Name, ID: id})
	}
	// Of one revision they stay in their order: entries by name, then the binding.
	slices.SortStableFunc(names, func(x, y svids.Name) int { return cmp.Compare(s.since[x.Entry], s.since[y.Entry]) })
	seen := map[spiffeid.ID]bool{}
	names = slices.DeleteFunc(names, func(w svids.Name) bool {
		twice := seen[w.ID]
		seen[w.ID] = true
		return twice
	})
	if len(names) > 0 || errors.Is(err, ErrNotBound) {
		return names, nil
	}
	return names, err
}

// WithFiles are the entries whose identity is kept in files, in the order in which they were
// first there: of two that name one folder the second gets none.
func (s *Snapshot) WithFiles() []identity.Entry {
	list := slices.DeleteFunc(slices.Clone(s.Entries), func(e identity.Entry) bool { return e.Files == nil })
	slices.SortStableFunc(list, func(x, y identity.Entry) int {
		return cmp.Or(cmp.Compare(s.since[x.Name], s.since[y.Name]), cmp.Compare(x.Name, y.Name))
	})
	return list
}

// Hint of an entry's, "" for a binding.
func (s *Snapshot) Hint(entry string) string {
	for _, e := range s.Entries {
		if e.Name == entry {
			return e.Hint
		}
	}
	return ""
}

// ErrNone is returned before the first complete set.
var ErrNone = errors.New("the agent has nothing from its server yet")

// ProxyName is the name of the agent's own proxy among a peer's selectors,
// "" where it is none.
func ProxyName(has identity.Selectors) string {
	for _, s := range has {
		if name, ok := cutProxy(s); ok {
			return name
		}
	}
	return ""
}

// cutProxy reports whether a selector is that of a supervised proxy, and its name.
func cutProxy(s identity.Selector) (string, bool) {
	if s.Type != "signet" {
		return "", false
	}
	return strings.CutPrefix(s.Value, "proxy:")
}
