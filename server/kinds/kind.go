package kinds

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/manifest"
)

// Kind is everything that is particular to one kind.
type Kind struct {
	Name string
	// Plural is the name by which lists of it are asked for, Short one of two or three
	// letters, "" for none; both in lower case.
	Plural, Short string
	// Group is the API version of its manifests.
	Group string
	// Reach is whose proxies a change of an object can reach.
	Reach Reach
	// Single is what no two objects of it have in common; nil for one of which any
	// number goes together. There are few of a kind that has it.
	Single *Single
	// Listed: there are few of it, and a model has a list of all, which a change of one makes again.
	Listed bool

	parse  func(*manifest.Document, spiffeid.TrustDomain) (*Object, error) // of Signet's own
	refers func(value any) []Ref                                           // nil: to nothing, or to what mesh's graph resolves
}

// Reach is whose proxies can be told something else when an object changes. The zero
// value is what is not known to reach less.
type Reach int

// How far a change reaches.
const (
	Everyone Reach = iota // all proxies
	Callers               // those whose calls lead to the object, and its own
	Nobody                // no route, cluster or listener is made of it
)

// Single is what no two objects of a kind have in common.
type Single struct {
	Of    func(value any) string
	Field string // by which the second is refused
	clash string
}

// Clash is why an object is refused beside one that is there.
func (s *Single) Clash(there string) string { return strings.ReplaceAll(s.clash, "NAME", there) }

// Ref is an object that another one names, and which must be there.
type Ref struct {
	To    Key
	Field string
	Verb  string // in "Entry web names NodeGroup edge"
}

// All lists the kinds, referents before what refers to them. It is not to be changed.
func All() []Kind { return table }

// Find is the kind that a name or an alias of any case means.
func Find(name string) (Kind, bool) {
	name = strings.ToLower(name)
	i := slices.IndexFunc(table, func(k Kind) bool {
		low := strings.ToLower(k.Name)
		return name == low || name == low+"s" || name == k.Plural || k.Short != "" && name == k.Short
	})
	if i < 0 {
		return Kind{}, false
	}
	return table[i], true
}

// Names lists the names of those kinds that are asked for.
func Names(of func(Kind) bool) []string {
	var names []string
	for _, k := range table {
		if of(k) {
			names = append(names, k.Name)
		}
	}
	return names
}

// named is the kind of exactly this name.
func named(name string) *Kind {
	i := slices.IndexFunc(table, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return &table[i]
}

// Own reports whether a kind is one of Signet's own that mesh does not understand: an
// object of it is in no mesh.
func (k Kind) Own() bool { return k.parse != nil }
