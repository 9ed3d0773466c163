package repo

import (
	"unicode"

	"signet.example/policy/tree"
)

// What is read, and the limits of it.
type (
	Module = tree.Module
	Tree   = tree.Tree
)

const (
	maxModules    = tree.MaxModules
	maxModuleSize = tree.MaxModuleSize
	maxTotalSize  = tree.MaxTotalSize
)

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
