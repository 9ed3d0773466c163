// Package tree is Rego as it stands in a repository: files with their paths, of one
// commit, within bounds. It imports nothing of ours: who reads it from git (policy/repo)
// and who compiles it (policy) need nothing else of each other.
package tree

import "strings"

// Limits of a tree, and of a revision.
const (
	MaxModules    = 2000
	MaxModuleSize = 1 << 20
	MaxTotalSize  = 4 << 20 // compiled it is 45 times as much, and an old revision stays beside a new one
)

// Module is one Rego file; Path is relative to the repository's root.
type Module struct{ Path, Rego string }

// IsTest reports whether the module holds tests, which are run but not served.
func (m Module) IsTest() bool { return strings.HasSuffix(m.Path, "_test.rego") }

// Tree is what was read of one commit.
type Tree struct {
	// URL without credentials.
	URL, Commit string
	// Modules with their tests, sorted by path.
	Modules []Module
}
