package identity

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Plain is an Entry or a Binding in the plain values in which it travels from
// server to agent.
type Plain struct {
	Name         string
	SPIFFEID     string
	Selectors    []string
	TTL          time.Duration
	Hint         string          // of an Entry
	Files        *Files          // of an Entry
	VirtualNode  VirtualNodeName // of a Binding
	Applications []string        // of a Binding
}

// Plain returns e as plain values.
func (e Entry) Plain() Plain {
	return Plain{Name: e.Name, SPIFFEID: e.ID.String(), Selectors: e.Selectors.Strings(), TTL: e.TTL, Hint: e.Hint, Files: e.Files}
}

// Plain returns b as plain values, with the identity that it grants in td.
func (b Binding) Plain(td spiffeid.TrustDomain) (Plain, error) {
	id, err := b.ID(td)
	if err != nil {
		return Plain{}, fmt.Errorf("binding %q: %w", b.Name, err)
	}
	return Plain{Name: b.Name, SPIFFEID: id.String(), Selectors: b.Selectors.Strings(), VirtualNode: b.VirtualNode, Applications: b.Applications.Strings()}, nil
}

// IsBinding reports whether p was a Binding.
func (p Plain) IsBinding() bool { return p.VirtualNode != VirtualNodeName{} }

// Entry returns the identity and its selectors, whether p was an Entry or a
// Binding. It checks again what the sender checked: an agent serves keys by it.
func (p Plain) Entry(td spiffeid.TrustDomain) (Entry, error) {
	id, err := buildOwnID(td, p.SPIFFEID)
	if err != nil {
		return Entry{}, fmt.Errorf("entry %s: %w", Abbreviate(p.Name), err)
	}
	sels, err := p.selectors()
	if err != nil {
		return Entry{}, err
	}
	if p.TTL != 0 && (p.TTL < MinTTL || p.TTL > MaxTTL) {
		return Entry{}, fmt.Errorf("entry %s: ttl %s is out of bounds", Abbreviate(p.Name), p.TTL)
	}
	if err := checkHint(p.Hint); err != nil {
		return Entry{}, fmt.Errorf("entry %s: hint %w", Abbreviate(p.Name), err)
	}
	if err := p.Files.check(sels); err != nil {
		return Entry{}, fmt.Errorf("entry %s: %w", Abbreviate(p.Name), err)
	}
	return Entry{Name: p.Name, ID: id, Selectors: sels, TTL: p.TTL, Hint: p.Hint, Files: p.Files}, nil
}

// Binding returns the binding, and an error where p was an Entry or where its
// SPIFFE ID is not the one of the virtual node in td.
func (p Plain) Binding(td spiffeid.TrustDomain) (Binding, error) {
	sels, err := p.selectors()
	if err != nil {
		return Binding{}, err
	}
	apps, err := buildApplications(p.Applications)
	if err != nil {
		return Binding{}, fmt.Errorf("binding %s: %w", Abbreviate(p.Name), err)
	}
	b := Binding{Name: p.Name, VirtualNode: p.VirtualNode, Selectors: sels, Applications: apps}
	id, err := b.ID(td)
	if err != nil {
		return Binding{}, fmt.Errorf("binding %s: %w", Abbreviate(p.Name), err)
	}
	if id.String() != p.SPIFFEID {
		return Binding{}, fmt.Errorf("binding %s: %s is not the identity of virtual node %s/%s", Abbreviate(p.Name), Abbreviate(p.SPIFFEID), Abbreviate(p.VirtualNode.Mesh), Abbreviate(p.VirtualNode.Name))
	}
	return b, nil
}

func (p Plain) selectors() (Selectors, error) {
	sels, err := buildWorkloadSelectors(p.Selectors)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", Abbreviate(p.Name), err)
	}
	return sels, nil
}
