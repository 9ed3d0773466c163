package repo

import (
	"strings"
	"unicode"
)

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

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
