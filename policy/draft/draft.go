// Package draft writes the Rego that a mesh begins with: for exactly what it declares, or
// for what was seen of its traffic. What it writes is for a repository, where its owners
// change it; nothing here is served.
//
// Main entries: FromMesh and FromTraffic. All of it is pure: the same in the same order gives
// the same files, byte for byte.
package draft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/policy/tree"
	"signet.example/proxy"
)

// Draft is what was written, and what has to be known about it.
type Draft struct {
	Files []File
	// Notes are what the rules do not hold to, and what could not be told.
	Notes []string
}

// File is one of a repository.
type File struct {
	// Path is <mesh>/<node>/<name>.rego.
	Path, Content string
	Rules         int // in it; 0 of tests
}

// Written is in the first lines of each file, to know it again.
const Written = "# Written by signet policy init"

// Example is a text that a regular expression matches, "" where none is found.
type Example func(regex string) string

// Mesh is whose policy is written.
type Mesh struct {
	Graph       *mesh.Graph
	TrustDomain spiffeid.TrustDomain
	// Only is the one mesh that is meant; "" for all.
	Only string
	// Example is needed for tests of rules whose paths are regular expressions.
	Example Example
}

// names of the meshes that are meant.
func (m Mesh) names() []string {
	if m.Only != "" {
		return []string{m.Only}
	}
	return m.Graph.Meshes()
}

// id is the identity of a virtual node or gateway; "" where its name makes none.
func (m Mesh) id(r proxy.Ref) string {
	id, err := identity.ForVirtualNode(m.TrustDomain, r.Mesh, r.Name)
	if err != nil {
		return ""
	}
	return id.String()
}

// unwritten is why a virtual node or gateway can have no package of its own; "" if it can.
func (m Mesh) unwritten(r proxy.Ref) string {
	switch {
	case m.id(r) == "":
		return "its name makes no SPIFFE ID, so that no rule can name it"
	case policy.IsAsked(r.Mesh) || policy.IsAsked(r.Name):
		return "its package would have the name of a rule; write what it allows in package signet.authz, by input.destination"
	}
	return ""
}

// drafting collects rules and notes.
type drafting struct {
	mesh  Mesh
	rules map[proxy.Ref][]rule
	notes []string
}

// draft is what all rules come to.
func (d *drafting) draft(form form) Draft {
	files := d.files(form)
	if n := len(files) / 2 * 3; n > tree.MaxModules { // two files and their folder
		d.notes = append(d.notes, fmt.Sprintf("a repository may hold %d files and folders, and these are %d: --mesh writes those of one mesh", tree.MaxModules, n))
	}
	return Draft{files, d.notes}
}

// files are those of all rules: two for each virtual node that has any.
func (d *drafting) files(form form) []File {
	var list []File
	for _, callee := range slices.SortedFunc(maps.Keys(d.rules), proxy.Ref.Compare) {
		list = append(list, form.write(callee, distinct(d.rules[callee]), d.mesh.Example)...)
	}
	return list
}

// distinct leaves out rules that allow nothing which another one does not, and puts the others
// in order.
func distinct(rules []rule) []rule {
	slices.SortStableFunc(rules, func(a, b rule) int {
		return cmp.Or(strings.Compare(a.by, b.by), slices.Compare(a.conditions(), b.conditions()))
	})
	var list []rule
	for i, r := range rules {
		wider := slices.IndexFunc(rules, func(o rule) bool { return o.covers(r) && !r.covers(o) })
		if same := slices.IndexFunc(rules, func(o rule) bool { return o.covers(r) && r.covers(o) }); wider < 0 && same < i {
			wider = same
		}
		if wider < 0 {
			list = append(list, r)
		}
	}
	for i := range list {
		for _, r := range rules {
			if list[i].covers(r) {
				list[i].why = append(list[i].why, r.why...)
			}
		}
		slices.Sort(list[i].why)
		list[i].why = slices.Compact(list[i].why)
	}
	return list
}
