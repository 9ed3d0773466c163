package manifest

import (
	"fmt"
	"iter"
)

// Leaf is a value of a document that has none below it.
type Leaf struct {
	Path         string // "spec.listeners[0].portMapping.port"
	Line, Column int
	Text         string // as it is written
	// Unfilled are the placeholders in it that have no value.
	Unfilled []string
}

// Leaves lists what was given in a document, in its order. What is null was not given.
func (d *Document) Leaves() iter.Seq[Leaf] {
	return func(yield func(Leaf) bool) { d.tree().leaves("", yield) }
}

func (v *value) leaves(path string, yield func(Leaf) bool) bool {
	switch {
	case v.shape == isNull:
		return true
	case len(v.fields)+len(v.items) == 0:
		return yield(Leaf{Path: path, Line: v.at.line, Column: v.at.col, Text: v.text, Unfilled: v.unfilled})
	}
	for _, f := range v.fields {
		if !f.val.leaves(below(path, f.name), yield) {
			return false
		}
	}
	for i, item := range v.items {
		if !item.leaves(fmt.Sprintf("%s[%d]", path, i), yield) {
			return false
		}
	}
	return true
}
