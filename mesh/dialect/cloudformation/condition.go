package cloudformation

import (
	"fmt"
	"strings"

	"signet.example/internal/manifest"
)

// truth is whether a condition is met.
type truth int

const (
	unknown truth = iota
	no
	yes
)

func known(b bool) truth {
	if b {
		return yes
	}
	return no
}

// condition evaluates a condition by its name; where it is not known, why.
func (t *template) condition(name string) (truth, string) {
	n := t.conditions.Get(name)
	if n.Is() == manifest.Null {
		return unknown, fmt.Sprintf("the template has no condition %q", manifest.Clip(name))
	}
	key := "condition " + name
	if t.open[key] {
		return unknown, key + " needs itself"
	}
	t.open[key] = true
	defer delete(t.open, key)
	return t.truth(n)
}

func (t *template) truth(n manifest.Node) (truth, string) {
	const what = "a condition has none of the functions that it can have"
	members := n.Members()
	if t.values++; t.values > maxValues || t.depth > maxNested {
		return unknown, "the template expands to too much"
	}
	if len(members) != 1 {
		return unknown, what
	}
	t.depth++
	defer func() { t.depth-- }()
	arg := members[0].Value
	switch strings.TrimPrefix(members[0].Name, "Fn::") {
	case "Condition":
		return t.condition(arg.Text())
	case "Equals":
		return t.equal(t.arguments(arg, 2))
	case "Not":
		if items := arg.Items(); len(items) == 1 {
			is, why := t.truth(items[0])
			return map[truth]truth{yes: no, no: yes}[is], why
		}
	case "And":
		return t.all(arg.Items(), no)
	case "Or":
		return t.all(arg.Items(), yes)
	}
	return unknown, what
}

func (t *template) equal(args []manifest.Node) (truth, string) {
	if len(args) != 2 {
		return unknown, "Fn::Equals does not have two values"
	}
	for _, arg := range args {
		switch arg.Is() {
		case manifest.Scalar:
		case manifest.Opaque:
			return unknown, arg.Why()
		default:
			return unknown, "Fn::Equals has a value that is no text"
		}
	}
	return known(args[0].Text() == args[1].Text()), ""
}

// all: one that is decisive decides, whatever is unknown beside it.
func (t *template) all(items []manifest.Node, decisive truth) (truth, string) {
	out, why := map[truth]truth{yes: no, no: yes}[decisive], ""
	for _, item := range items {
		is, because := t.truth(item)
		if is == decisive {
			return decisive, ""
		}
		if is == unknown {
			out, why = unknown, because
		}
	}
	return out, why
}
