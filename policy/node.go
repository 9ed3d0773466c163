package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"signet.example/proxy"
)

// Package is a package with the rules of one virtual node, and where it stands.
type Package struct {
	// Node is what the package names: <mesh>/<node>, or <node> alone, in which
	// '_' may stand for '-'.
	Node string
	File string
	Line int
}

// String is the package as it is written.
func (p Package) String() string { return PackageName(p.Node) }

// PackageName is the package of a Package.Node as it is written in Rego.
func PackageName(node string) string {
	path := ast.Ref{ast.VarTerm("signet"), ast.StringTerm("authz")}
	for name := range strings.SplitSeq(node, "/") {
		path = append(path, ast.StringTerm(name))
	}
	return "package " + path.String()
}

// Means reports whether the package may have been written for a virtual node.
// The full form means exactly one. The short form, signet.authz.<node>, names no
// mesh, and no identifier of Rego has a '-', for which it may have '_'.
func (p Package) Means(node proxy.Ref) bool {
	names := PackageNames(node)
	return slices.Contains(names[:], p.Node)
}

// PackageNames are all that a node's rules may stand under.
func PackageNames(node proxy.Ref) [3]string {
	return [3]string{strings.ReplaceAll(node.Name, "-", "_"), node.Name, node.Mesh + "/" + node.Name}
}

// Packages lists the nodes' packages of modules that compile, each once.
func Packages(modules []Module) ([]Package, error) {
	_, all, err := parse(slices.DeleteFunc(slices.Clone(modules), Module.IsTest))
	if err != nil {
		return nil, err
	}
	var list []Package
	for _, p := range all {
		if p.node != "" && !slices.ContainsFunc(list, func(o Package) bool { return o.Node == p.node }) {
			loc := p.module.Package.Loc()
			list = append(list, Package{p.node, loc.File, loc.Row})
		}
	}
	return list, nil
}

// packagesOf lists the packages that there are of a node.
func (c *Compiled) packagesOf(node proxy.Ref) []string {
	var list []string
	for _, name := range PackageNames(node) {
		if c.nodes[name] && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// askedTogether lists each set of packages that packagesOf can give.
func (c *Compiled) askedTogether() [][]string {
	var sets [][]string
	for name := range c.nodes {
		mesh, node, full := strings.Cut(name, "/")
		if !full {
			mesh, node = "", name
			sets = append(sets, []string{name}) // a node whose name has '-' where this has '_'
		}
		if set := c.packagesOf(proxy.Node(mesh, node)); len(set) > 0 {
			sets = append(sets, set)
		}
	}
	return sets
}

func programKey(packages []string) string { return strings.Join(packages, "\n") }
