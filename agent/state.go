package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/proxy"
)

// state is all that the agent was told in Signet's own resources, at one
// moment. Immutable.
type state struct {
	td spiffeid.TrustDomain
	// entries and bindings are those of this host's group, without banned identities.
	entries  []identity.Entry
	bindings []identity.Binding
	// ids is the identity that each entry or binding grants, by name.
	ids map[string]spiffeid.ID
	// since is the revision in which each of them was first there, by name.
	since    map[string]uint64
	policies []*api.PolicyRevision
	// newest is the id of the revision that is in force or about to be.
	newest  string
	issuers []*api.JWTIssuer
	bans    map[string]bool
	// own returns what a proxy that the agent starts runs for; nil: it starts none.
	own func(name string) (proxy.Ref, bool)
	// problems are resources that could not be used, for `signet check`.
	problems []string
}

// ownTypes is what the agent subscribes to for itself.
var ownTypes = []string{ads.EntryType, ads.BundleType, ads.PolicyType, ads.JWTIssuerType, ads.BanType}

// newState reads a complete set of the agent's own resources; old is the state
// before, or nil. A resource that cannot be used costs itself and no other one,
// and is named.
func newState(td spiffeid.TrustDomain, set *ads.Set, view *ads.Resource, old *state) *state {
	s := &state{td: td, ids: map[string]spiffeid.ID{}, since: map[string]uint64{}, bans: map[string]bool{}}
	each(s, set, ads.BanType, func(b *api.Ban) error {
		s.bans[b.GetSpiffeId()] = true
		return nil
	})
	each(s, set, ads.EntryType, s.addEntry)
	each(s, set, ads.PolicyType, func(p *api.PolicyRevision) error {
		s.policies = append(s.policies, p)
		return nil
	})
	each(s, set, ads.JWTIssuerType, func(j *api.JWTIssuer) error {
		s.issuers = append(s.issuers, j)
		return nil
	})
	s.newest = s.newestRevision(view, old)
	return s
}

// newestRevision is what the view says; where it says nothing, the revision that
// was not there before.
func (s *state) newestRevision(view *ads.Resource, old *state) string {
	var v api.View
	if view != nil && proto.Unmarshal(view.Body, &v) == nil && v.GetPolicyRevision() != "" {
		return v.GetPolicyRevision()
	}
	known := map[string]bool{}
	newest := ""
	if old != nil {
		for _, p := range old.policies {
			known[p.GetId()] = true
		}
	}
	for _, p := range s.policies {
		if newest == "" || !known[p.GetId()] || old != nil && p.GetId() == old.newest && known[newest] {
			newest = p.GetId()
		}
	}
	return newest
}

func (s *state) addEntry(e *api.Entry) error {
	plain := identity.Plain{
		Name: e.GetName(), SPIFFEID: e.GetSpiffeId(), Selectors: e.GetSelectors(), TTL: e.GetTtl().AsDuration(),
		Mesh: e.GetVirtualNode().GetMesh(), VirtualNode: e.GetVirtualNode().GetName(), Applications: e.GetApplications(),
		Hint: e.GetHint(),
	}
	if s.bans[plain.SPIFFEID] {
		return nil
	}
	if plain.Name == svids.Own {
		return errors.New("it has no name")
	}
	s.since[plain.Name] = e.GetSince()
	if !plain.IsBinding() {
		entry, err := plain.Entry(s.td)
		if err != nil {
			return err
		}
		s.entries = append(s.entries, entry)
		s.ids[entry.Name] = entry.ID
		return nil
	}
	binding, err := plain.Binding(s.td)
	if err != nil {
		return err
	}
	id, err := binding.ID(s.td)
	if err != nil {
		return err
	}
	s.bindings = append(s.bindings, binding)
	s.ids[binding.Name] = id
	return nil
}

// each calls use with every resource of a type, decoded.
func each[M any, P interface {
	*M
	proto.Message
}](s *state, set *ads.Set, typeURL string, use func(P) error) {
	for _, r := range set.Type(typeURL) {
		m := P(new(M))
		err := proto.Unmarshal(r.Body, m)
		if err == nil {
			err = use(m)
		}
		if err != nil {
			s.problems = append(s.problems, fmt.Sprintf("%T %s: %v", m, r.Name, err))
		}
	}
}

// grants reports whether the entry or binding exists and grants this identity.
func (s *state) grants(w svids.Name) bool {
	id, ok := s.ids[w.Entry]
	return ok && id == w.ID
}

// bindingNamed finds a binding by its name; a nil state has none.
func (s *state) bindingNamed(name string) (identity.Binding, bool) {
	if s == nil {
		return identity.Binding{}, false
	}
	for _, b := range s.bindings {
		if b.Name == name {
			return b, true
		}
	}
	return identity.Binding{}, false
}

// binding returns the binding that lets a peer with these selectors be the proxy
// of a virtual node. The Ref of an xDS node id selects among what the peer is
// bound to and grants nothing; so does the agent's configuration, for a proxy that
// it starts. The zero Ref selects nothing, and then a peer that bindings for two
// nodes fit is neither: which identity it had would be chance.
func (s *state) binding(has identity.Selectors, ref proxy.Ref) (identity.Binding, spiffeid.ID, error) {
	none := proxy.Ref{}
	if own, ok := s.configured(supervisedName(has)); ok {
		if ref != none && ref != own {
			return identity.Binding{}, spiffeid.ID{}, errNotBound
		}
		ref = own
	}
	candidates := s.bindings
	if ref != none {
		candidates = nil
		for _, b := range s.bindings {
			if refOf(b) == ref {
				candidates = append(candidates, b)
			}
		}
	}
	b, ok, err := identity.MatchBindings(candidates, has)
	if err != nil {
		return identity.Binding{}, spiffeid.ID{}, err
	}
	if !ok {
		return identity.Binding{}, spiffeid.ID{}, errNotBound
	}
	return b, s.ids[b.Name], nil
}

// wantsHash reports whether an entry or binding that a peer with these selectors
// might fit asks for the hash of its program.
func (s *state) wantsHash(others identity.Selectors) bool {
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
	return slices.ContainsFunc(s.bindings, func(b identity.Binding) bool { return asks(b.Selectors) }) ||
		slices.ContainsFunc(s.entries, func(e identity.Entry) bool { return asks(e.Selectors) })
}

// refOf is what a binding lets a process be the proxy of.
func refOf(b identity.Binding) proxy.Ref { return proxy.Node(b.Mesh, b.VirtualNode) }

// configured returns what a proxy of the agent's own configuration runs for.
func (s *state) configured(name string) (proxy.Ref, bool) {
	if name == "" || s.own == nil {
		return proxy.Ref{}, false
	}
	return s.own(name)
}

// errNotBound does not say whether there is such a virtual node: the same
// answer for "not yours" and "does not exist".
var errNotBound = errors.New("no binding lets this process be a proxy here")

// identities are all that a peer with these selectors may hold: those of its
// entries, and that of its binding where exactly one fits. The first is what a
// workload takes that does not choose: the one that was there first, so that no
// new entry changes it.
func (s *state) identities(has identity.Selectors) ([]svids.Name, error) {
	var wants []svids.Name
	for _, e := range identity.MatchEntries(s.entries, has) {
		wants = append(wants, svids.Name{Entry: e.Name, ID: e.ID})
	}
	b, id, err := s.binding(has, proxy.Ref{})
	if err == nil {
		wants = append(wants, svids.Name{Entry: b.Name, ID: id})
	}
	// Of one revision they stay in their order: entries by name, then the binding.
	slices.SortStableFunc(wants, func(x, y svids.Name) int { return cmp.Compare(s.since[x.Entry], s.since[y.Entry]) })
	seen := map[spiffeid.ID]bool{}
	wants = slices.DeleteFunc(wants, func(w svids.Name) bool {
		twice := seen[w.ID]
		seen[w.ID] = true
		return twice
	})
	if len(wants) > 0 || errors.Is(err, errNotBound) {
		return wants, nil
	}
	return wants, err
}

// hint of an entry's, "" for a binding.
func (s *state) hint(entry string) string {
	for _, e := range s.entries {
		if e.Name == entry {
			return e.Hint
		}
	}
	return ""
}

// followed returns the trust that a set of resources leads to: a newer root set,
// if it is signed by the key that the agent has known since it joined. The list
// of authorities beside the signed document is not looked at: nothing vouches for it.
func followed(t *svids.Trust, set *ads.Set) (*svids.Trust, error) {
	for _, r := range set.Type(ads.BundleType) {
		var b api.Bundle
		if err := proto.Unmarshal(r.Body, &b); err != nil {
			return t, fmt.Errorf("bundle %s: %w", r.Name, err)
		}
		if b.GetTrustDomain() != t.Roots.TrustDomain.Name() {
			continue // federated bundles come with federation
		}
		next, err := svids.ParseTrust(b.GetSignedRootSet(), t.Roots.Pin())
		if err != nil {
			return t, fmt.Errorf("bundle %s: %w", r.Name, err)
		}
		// An older document may be true and yet lack a root that was taken away.
		if next.Roots.TrustDomain != t.Roots.TrustDomain || next.Roots.Number <= t.Roots.Number {
			continue
		}
		return next, nil
	}
	return t, nil
}
