package policies

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/proxy"
)

// Claims lists the virtual nodes that a package of the policy may have been
// written for. More than one must not be: a rule that was written for one would
// open the other.
func Claims(g *mesh.Graph, p policy.Package) []proxy.Ref {
	var list []proxy.Ref
	for _, name := range g.Meshes() {
		for _, n := range g.Nodes(name) {
			if p.Means(n.Ref) {
				list = append(list, n.Ref)
			}
		}
	}
	return list
}

// Contested are the packages that several virtual nodes claim.
func Contested(g *mesh.Graph, packages []policy.Package) []policy.Package {
	if len(packages) == 0 {
		return nil
	}
	claimed := map[string]int{} // by Package.Node: how many nodes claim it
	for _, name := range g.Meshes() {
		for _, n := range g.Nodes(name) {
			names := policy.PackageNames(n.Ref)
			for _, p := range slices.Compact(names[:]) { // the first two may be one
				claimed[p]++
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(packages), func(p policy.Package) bool { return claimed[p.Node] < 2 })
}

// ContestedText reports which nodes claim a package, and how each is named alone.
func ContestedText(p policy.Package, nodes []proxy.Ref) string {
	var names, packages []string
	for _, n := range nodes {
		names = append(names, n.Mesh+"/"+n.Name)
		packages = append(packages, policy.PackageName(n.Mesh+"/"+n.Name))
	}
	return fmt.Sprintf("%s:%d: %s may mean the virtual nodes %s: write %s", p.File, p.Line, p, strings.Join(names, " and "), strings.Join(packages, " or "))
}

// uncontested refuses a tree in which a package may mean several virtual nodes.
func uncontested(g *mesh.Graph, packages []policy.Package) error {
	var texts []string
	for _, p := range Contested(g, packages) {
		texts = append(texts, ContestedText(p, Claims(g, p)))
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(texts, "; "))
}

// maxUnclaimed bounds how many packages of no node are told.
const maxUnclaimed = 20

// unclaimed warns of packages that are of no virtual node. Its rules may be
// there before it, so they are served.
func unclaimed(g *mesh.Graph, packages []policy.Package) []string {
	var short, full, list []string
	for _, name := range g.Meshes() {
		for _, n := range g.Nodes(name) {
			full = append(full, n.Mesh+"/"+n.Name)
			short = append(short, strings.ReplaceAll(n.Name, "-", "_"))
		}
	}
	for i, p := range packages {
		if len(Claims(g, p)) > 0 {
			continue
		}
		if len(list) == maxUnclaimed {
			return append(list, fmt.Sprintf("and perhaps more among %d further packages", len(packages)-i))
		}
		names := short
		if strings.Contains(p.Node, "/") {
			names = full
		}
		text := fmt.Sprintf("%s:%d: %s is of no virtual node, so nobody is asked for its rules", p.File, p.Line, p)
		if best := manifest.Nearest(p.Node, names); best != "" {
			text += fmt.Sprintf("; did you mean %s?", policy.PackageName(best))
		} else if named := withNamespace(p.Node, short); named != "" {
			text += fmt.Sprintf("; did you mean %s?", policy.PackageName(named))
		}
		list = append(list, text)
	}
	return list
}

// withNamespace finds the node whose name is this one and a namespace, as App
// Mesh's controller makes it.
func withNamespace(name string, nodes []string) string {
	for _, n := range nodes {
		if strings.HasPrefix(n, name+"_") {
			return n
		}
	}
	return ""
}
