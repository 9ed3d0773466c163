package ads

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Set is an immutable collection of resources, unique by type and name.
// The zero value and nil are empty sets.
type Set struct {
	types   map[string]group
	version string
	n       int
	sent    joins
}

// group is the resources of one type, sorted by name, with the hash of their
// names and versions. The slice is shared by all streams and never written.
type group struct {
	rs      []*Resource
	version string
}

// NewSet collects resources; the same name twice within a type is an error, as
// Envoy refuses such a response.
func NewSet(rs ...*Resource) (*Set, error) {
	byType := make(map[string][]*Resource)
	for _, r := range rs {
		byType[r.Type] = append(byType[r.Type], r)
	}
	groups := make(map[string]group, len(byType))
	for t, rs := range byType {
		slices.SortFunc(rs, byName)
		for i := 1; i < len(rs); i++ {
			if rs[i].Name == rs[i-1].Name {
				return nil, fmt.Errorf("ads: two resources of type %s are named %q", t, rs[i].Name)
			}
		}
		rs = slices.Clip(rs)
		groups[t] = group{rs: rs, version: groupVersion(rs)}
	}
	return newSet(groups), nil
}

// newSet names the version of groups by the versions of its types.
func newSet(groups map[string]group) *Set {
	s := &Set{types: groups}
	h := sha256.New()
	for _, t := range s.Types() {
		writePart(h, t)
		writePart(h, groups[t].version)
		s.n += len(groups[t].rs)
	}
	s.version = sum(h)
	return s
}

// groupVersion hashes the names and versions of sorted resources.
func groupVersion(rs []*Resource) string {
	h := sha256.New()
	for _, r := range rs {
		writePart(h, r.Name)
		writePart(h, r.Version)
	}
	return sum(h)
}

// emptyVersion is the version of a set without resources.
var emptyVersion = groupVersion(nil)

// Version changes whenever a resource is added, changed or removed.
func (s *Set) Version() string {
	if s == nil || s.types == nil {
		return emptyVersion
	}
	return s.version
}

// TypeVersion is the hash of the sorted names and versions of one type's resources.
func (s *Set) TypeVersion(typeURL string) string {
	if g, ok := s.group(typeURL); ok {
		return g.version
	}
	return emptyVersion
}

func (s *Set) group(typeURL string) (group, bool) {
	if s == nil {
		return group{}, false
	}
	g, ok := s.types[typeURL]
	return g, ok
}

// Get returns the resource of that type and name, or nil.
func (s *Set) Get(typeURL, name string) *Resource {
	g, _ := s.group(typeURL)
	return find(g.rs, name)
}

// Type returns the resources of one type, sorted by name. The slice is shared: do not write to it.
func (s *Set) Type(typeURL string) []*Resource {
	g, _ := s.group(typeURL)
	return g.rs
}

// Types returns the type URLs that the set has resources of, sorted.
func (s *Set) Types() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.types))
}

// Bytes is what the resources take.
func (s *Set) Bytes() int {
	n := 0
	if s != nil {
		for _, g := range s.types {
			for _, r := range g.rs {
				n += len(r.Body) + len(r.Name) + len(r.Version)
			}
		}
	}
	return n
}

// Len is the number of resources.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// Merge returns a set of the resources of both; a type and name that both hold is an error.
func (s *Set) Merge(other *Set) (*Set, error) {
	if s != nil && other != nil && !slices.ContainsFunc(other.Types(), func(t string) bool { return s.types[t].rs != nil }) {
		groups := maps.Clone(s.types) // nothing meets, so that no list is another
		if groups == nil {
			groups = map[string]group{}
		}
		maps.Copy(groups, other.types)
		return newSet(groups), nil
	}
	rs := make([]*Resource, 0, s.Len()+other.Len())
	return NewSet(append(s.appendTo(rs), other.appendTo(nil)...)...)
}

// Without returns the set without the resources of one type.
func (s *Set) Without(typeURL string) *Set {
	if _, ok := s.group(typeURL); !ok {
		return s
	}
	groups := maps.Clone(s.types)
	delete(groups, typeURL)
	return newSet(groups)
}

// Mapped returns the set with what f makes of each resource of one type, under the same name.
func (s *Set) Mapped(typeURL string, f func(*Resource) (*Resource, error)) (*Set, error) {
	g, _ := s.group(typeURL)
	list, same := make([]*Resource, len(g.rs)), true
	for i, r := range g.rs {
		is, err := f(r)
		if err != nil {
			return nil, err
		}
		list[i], same = is, same && is == r
	}
	if same {
		return s, nil
	}
	groups := maps.Clone(s.types)
	groups[typeURL] = group{rs: list, version: groupVersion(list)}
	return newSet(groups), nil
}

// withType returns the set with one type's resources as another set has them.
func (s *Set) withType(typeURL string, from *Set) *Set {
	groups := maps.Clone(s.types)
	if groups == nil {
		groups = map[string]group{}
	}
	if g, ok := from.group(typeURL); ok {
		groups[typeURL] = g
	} else {
		delete(groups, typeURL)
	}
	return newSet(groups)
}

// interned returns s built from old's resources where they are equal, and from
// old's lists where a whole type is: streams then compare pointers, and framing
// that was made once is kept.
func (s *Set) interned(old *Set) *Set {
	groups := make(map[string]group, len(s.types))
	for t, g := range s.types {
		was, _ := old.group(t)
		if was.version == g.version {
			groups[t] = was
			continue
		}
		rs := slices.Clone(g.rs)
		for i, r := range rs {
			if o := find(was.rs, r.Name); o != nil && o.Version == r.Version {
				rs[i] = o
			}
		}
		groups[t] = group{rs: rs, version: g.version}
	}
	return &Set{types: groups, version: s.version, n: s.n}
}

func (s *Set) appendTo(rs []*Resource) []*Resource {
	for _, t := range s.Types() {
		rs = append(rs, s.types[t].rs...)
	}
	return rs
}

// byName orders resources within a type.
func byName(a, b *Resource) int { return strings.Compare(a.Name, b.Name) }

// search returns where name is, or belongs, in sorted resources.
func search(rs []*Resource, name string) (int, bool) {
	return slices.BinarySearchFunc(rs, name, func(r *Resource, name string) int { return strings.Compare(r.Name, name) })
}

// find returns the resource of that name in sorted resources, or nil.
func find(rs []*Resource, name string) *Resource {
	if i, ok := search(rs, name); ok {
		return rs[i]
	}
	return nil
}
