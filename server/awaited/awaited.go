// Package awaited knows which virtual nodes' Bindings do not count yet, since nodes that were called
// without one go on to be, until a proxy of theirs is ready (docs/decisions/106).
//
// It owns [Nodes], an immutable value, and when a node is in it. It must not know what views are made
// of it.
package awaited

import (
	"iter"
	"log/slog"
	"slices"

	"signet.example/internal/ordered"
	"signet.example/proxy"
	"signet.example/server/shared"
)

// Nodes are the virtual nodes whose Binding does not count yet: they were called without one, and no
// proxy of theirs has been ready since they have one. Their callers go on as before, until the first
// is; nothing but a new Binding, after there was none, makes a node awaited again. Immutable; nil is
// none.
type Nodes struct {
	nodes ordered.Map[proxy.Ref, struct{}]
}

// Has reports whether a virtual node is awaited.
func (a *Nodes) Has(node proxy.Ref) bool {
	if a == nil {
		return false
	}
	_, ok := a.nodes.Find(node)
	return ok
}

// All lists them.
func (a *Nodes) All() iter.Seq[proxy.Ref] {
	return func(yield func(proxy.Ref) bool) {
		if a == nil {
			return
		}
		for node := range a.nodes.All() {
			if !yield(node) {
				return
			}
		}
	}
}

// With has one more.
func (a *Nodes) With(node proxy.Ref) *Nodes {
	switch {
	case a.Has(node):
		return a
	case a == nil:
		a = &Nodes{}
	}
	return &Nodes{a.nodes.With(node, struct{}{})}
}

// Without has one less.
func (a *Nodes) Without(node proxy.Ref) *Nodes {
	if !a.Has(node) {
		return a
	}
	return &Nodes{a.nodes.Without(node)}
}

// Differ lists those that are in one of two and not in the other.
func (a *Nodes) Differ(from *Nodes) []proxy.Ref {
	return slices.Collect(a.all().Differ(from.all()))
}

func (a *Nodes) all() ordered.Map[proxy.Ref, struct{}] {
	if a == nil {
		return ordered.Map[proxy.Ref, struct{}]{}
	}
	return a.nodes
}

// Awaits reports whether a virtual node is awaited still: as long as no proxy of it is ready.
func (a *Nodes) Awaits(node proxy.Ref, ready func(proxy.Ref) bool) bool {
	return a.Has(node) && !ready(node)
}

// Arrived is a without those of which a proxy is ready.
func (a *Nodes) Arrived(ready func(proxy.Ref) bool) *Nodes {
	left := a
	for node := range a.All() {
		if ready(node) {
			left = left.Without(node)
		}
	}
	return left
}

// node is one in a file.
type node struct {
	Mesh    string `json:"mesh"`
	Node    string `json:"node"`
	Gateway bool   `json:"gateway,omitempty"`
}

// OpenFile is what is awaited where there is one server, in a file beside the store. What is not in
// the file counts: where it is lost, callers of a node without a proxy are refused, and none speaks
// plaintext to what had been called by mTLS.
func OpenFile(path string, log *slog.Logger) (*shared.File[*Nodes], error) {
	return shared.OpenFile(path, shared.Form[*Nodes, []node]{
		What: "virtual nodes whose Binding does not count yet",
		Read: func(list []node) (a *Nodes) {
			for _, n := range list {
				a = a.With(proxy.For(n.Mesh, n.Node, n.Gateway))
			}
			return a
		},
		Write: func(a *Nodes) []node {
			list := []node{}
			for at := range a.All() {
				list = append(list, node{at.Mesh, at.Name, at.Gateway()})
			}
			return list
		},
		Same: func(a, b *Nodes) bool { return a == b },
	}, log)
}
