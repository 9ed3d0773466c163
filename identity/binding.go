package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Binding says that a process on a host of Group which has all of Selectors
// may be the proxy of the virtual node or gateway, and so hold its identity. It is the
// only grant: the node id in an xDS request merely selects among what a peer
// is bound to.
type Binding struct {
	Name, Group string
	VirtualNode VirtualNodeName
	Selectors   Selectors
	// Applications says who may call out through such a proxy.
	Applications Applications
}

// BindingSpec is the spec of kind Binding.
type BindingSpec struct {
	Group       string `yaml:"group" json:"group"`
	Mesh        string `yaml:"mesh" json:"mesh"`
	VirtualNode string `yaml:"virtualNode,omitempty" json:"virtualNode,omitempty"`
	// VirtualGateway stands in the place of VirtualNode.
	VirtualGateway string   `yaml:"virtualGateway,omitempty" json:"virtualGateway,omitempty"`
	Selectors      []string `yaml:"selectors" json:"selectors"`
	// Applications: unix:uid:N of those who may call out through the proxy, or
	// "anyone", or "namespace".
	Applications []string `yaml:"applications,omitempty" json:"applications,omitempty"`
}

// Build checks the spec. Whether the virtual node exists is the store's
// question, not this package's.
func (s BindingSpec) Build(name string, td spiffeid.TrustDomain) (Binding, error) {
	node, noNode := s.node(td)
	sels, noSelectors := buildWorkloadSelectors(s.Selectors)
	apps, noApplications := buildApplications(s.Applications)
	if err := errors.Join(CheckObjectName(name), checkGroup(s.Group), noNode, noSelectors, noApplications); err != nil {
		return Binding{}, err
	}
	return Binding{Name: name, Group: s.Group, VirtualNode: node, Selectors: sels, Applications: apps}, nil
}

// node is what the proxy is.
func (s BindingSpec) node(td spiffeid.TrustDomain) (VirtualNodeName, error) {
	node, field := VirtualNodeName{Mesh: s.Mesh, Name: s.VirtualNode}, "spec.virtualNode"
	switch {
	case s.VirtualNode != "" && s.VirtualGateway != "":
		return node, NewFieldError("spec.virtualGateway", "not together with virtualNode: a proxy is one of them")
	case s.VirtualGateway != "" && len(s.Applications) > 0:
		return node, NewFieldError("spec.applications", "not together with virtualGateway: no application calls out through one")
	case s.VirtualGateway != "":
		node.Name, node.Gateway, field = s.VirtualGateway, true, "spec.virtualGateway"
	}
	_, err := buildVirtualNodeID(td, node, "spec.mesh", field)
	return node, err
}

// ID is the identity that the binding grants.
func (b Binding) ID(td spiffeid.TrustDomain) (spiffeid.ID, error) {
	return ForVirtualNode(td, b.VirtualNode.Mesh, b.VirtualNode.Name)
}

// AmbiguousError is returned when bindings for two virtual nodes fit one peer: it
// gets neither.
type AmbiguousError struct{ First, Second Binding }

// Error names both bindings and what to do.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("bindings %q (%s) and %q (%s) both fit this process, so it gets neither: add a selector that tells them apart",
		e.First.Name, e.First.VirtualNode, e.Second.Name, e.Second.VirtualNode)
}

// EntryFits reports whether a workload with the selectors has may hold e's
// identity. An entry without selectors fits nobody.
func EntryFits(e Entry, has Selectors) bool { return fits(e.Selectors, has) }

// MatchEntries returns the entries that fit, in their order. Several may: a
// workload can hold more than one identity.
func MatchEntries(entries []Entry, has Selectors) []Entry {
	var out []Entry
	for _, e := range entries {
		if EntryFits(e, has) {
			out = append(out, e)
		}
	}
	return out
}

// MatchBindings returns the binding that fits, or false where none does. Of two
// for the same virtual node it is the first by name: the identity is the same,
// and when that one is deleted the other takes its place. Where those that fit
// lead to different virtual nodes it returns an *AmbiguousError that names two:
// which identity the peer had would be chance.
func MatchBindings(bindings []Binding, has Selectors) (Binding, bool, error) {
	found := FittingBindings(bindings, has)
	if len(found) == 0 {
		return Binding{}, false, nil
	}
	slices.SortFunc(found, func(a, b Binding) int { return strings.Compare(a.Name, b.Name) })
	for _, other := range found[1:] {
		if other.VirtualNode != found[0].VirtualNode {
			return Binding{}, false, &AmbiguousError{First: found[0], Second: other}
		}
	}
	return found[0], true, nil
}

// FittingBindings returns the bindings that fit, in their order.
func FittingBindings(bindings []Binding, has Selectors) []Binding {
	var found []Binding
	for _, b := range bindings {
		if fits(b.Selectors, has) {
			found = append(found, b)
		}
	}
	return found
}

func fits(wanted, has Selectors) bool {
	return len(wanted) > 0 && has.Contains(wanted)
}
