package manifest

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// shape is what a YAML node is.
type shape int

const (
	isNull shape = iota
	isBool
	isInt
	isFloat
	isString
	isList
	isMap
	isOpaque // cannot be known: text stands for it where a string stands
	isBroken // its mistake is told: nothing more is said of it
)

func (k shape) String() string {
	return [...]string{"null", "true or false", "a whole number", "a number", "a string", "a list", "a mapping", "not known", "broken"}[k]
}

// value is one node with aliases resolved. An alias shares its target, so
// size counts what a walk would see, not what is stored.
type value struct {
	shape  shape
	at     pos
	text   string // isString, isFloat, isOpaque; of a Node isBool and isInt, too
	why    string // isOpaque
	flag   bool   // isBool
	number int64  // isInt
	items  []*value
	fields []field
	size   int
	depth  int

	unfilled []string // placeholders without a value in text
}

type field struct {
	name string
	at   pos
	val  *value

	written string // in the text, where that is something else; see [Member]
}

// get finds a member that is not null.
func (v *value) get(name string) *value {
	if v == nil {
		return nil
	}
	for _, f := range v.fields {
		if f.name == name && f.val.shape != isNull {
			return f.val
		}
	}
	return nil
}

// tree turns the parser's nodes into values.
type tree struct {
	src     *source
	anchors map[string]*value
	errs    Errors
	level   int

	tags map[string]string // that are accepted: each means a mapping with this one key
}

func newTree(src *source) *tree { return &tree{src: src, anchors: map[string]*value{}} }

// build returns what could be read beside the mistakes of the rest, nil where it is too
// much to be looked at.
func (t *tree) build(n ast.Node) (*value, Errors) {
	v := t.value("", n)
	if v.size <= maxNodes {
		return v, t.errs
	}
	if len(t.errs) == 0 {
		t.fail(v.at, "", fmt.Sprintf("expands to more than %d nodes", maxNodes))
	}
	return nil, t.errs
}

func (t *tree) fail(at pos, path, msg string) *value {
	if len(t.errs) < MaxErrors {
		t.errs = append(t.errs, t.src.errorAt(at, path, msg))
	}
	return &value{shape: isBroken, at: at, size: 1, depth: 1}
}

func (t *tree) value(path string, n ast.Node) *value {
	if n == nil {
		return &value{shape: isNull, at: pos{line: t.src.first}, size: 1, depth: 1}
	}
	at := t.src.posOf(n.GetToken())
	if t.level++; t.level > maxDepth {
		t.level--
		return t.fail(at, path, fmt.Sprintf("is nested more than %d deep", maxDepth))
	}
	defer func() { t.level-- }()
	switch n := n.(type) {
	case *ast.MappingNode:
		return t.mapping(path, at, n.Values)
	case *ast.MappingValueNode:
		return t.mapping(path, at, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		return t.sequence(path, at, n)
	case *ast.AnchorNode:
		v := t.value(path, n.Value)
		if n.Name != nil { // registered after its value, so that a cycle finds no anchor
			t.anchors[n.Name.GetToken().Value] = v
		}
		return v
	case *ast.AliasNode:
		return t.alias(path, at, n)
	case *ast.TagNode:
		return t.tag(path, at, n)
	default:
		return t.scalar(path, at, n)
	}
}

func (t *tree) tag(path string, at pos, n *ast.TagNode) *value {
	key, ok := t.tags[n.GetToken().Value]
	if !ok {
		return t.fail(at, path, "has a YAML tag, which is not accepted")
	}
	v := &value{shape: isMap, at: at, size: 1}
	v.fields = []field{{name: key, at: at, val: t.child(path, v, n.Value)}}
	v.depth++
	return v
}

func (t *tree) alias(path string, at pos, n *ast.AliasNode) *value {
	name := ""
	if n.Value != nil {
		name = n.Value.GetToken().Value
	}
	v, ok := t.anchors[name]
	if !ok {
		return t.fail(at, path, fmt.Sprintf("alias *%s has no anchor before it", name))
	}
	if t.level+v.depth > maxDepth {
		return t.fail(at, path, fmt.Sprintf("is nested more than %d deep", maxDepth))
	}
	return v
}

func (t *tree) scalar(path string, at pos, n ast.Node) *value {
	v := &value{at: at, size: 1, depth: 1}
	switch n := n.(type) {
	case *ast.NullNode:
		v.shape = isNull
	case *ast.BoolNode:
		v.shape, v.flag, v.text = isBool, n.Value, n.GetToken().Value
	case *ast.StringNode:
		v.shape, v.text = isString, n.Value
		t.written(v)
	case *ast.LiteralNode:
		v.shape, v.text = isString, n.Value.Value
		t.written(v)
	case *ast.IntegerNode:
		return t.integer(path, v, n.GetToken().Value)
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		v.shape, v.text = isFloat, n.GetToken().Value
	default:
		return t.fail(at, path, fmt.Sprintf("is a YAML %s, which is not accepted", n.Type()))
	}
	return v
}

// written turns a string back to what its author wrote.
func (t *tree) written(v *value) {
	if t.src.unfilled != nil {
		v.text, v.unfilled = t.src.unfilled(v.text)
	}
}

// integer takes decimal only: 010 is eight in YAML 1.1, which kubectl reads,
// and ten in 1.2; 1_0 a number in one and a string in the other.
func (t *tree) integer(path string, v *value, text string) *value {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return t.fail(v.at, path, fmt.Sprintf("number %q: write it in decimal without leading zeros, or in quotes where it is text, such as a mode", Clip(text)))
	}
	v.shape, v.number, v.text = isInt, n, text
	return v
}

func (t *tree) sequence(path string, at pos, n *ast.SequenceNode) *value {
	v := &value{shape: isList, at: at, size: 1}
	for i, item := range n.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		c := t.child(at, v, item)
		// The parser takes "-" and a mapping below it in the same column for an
		// item; YAML 1.2 section 8.2.1, and so kubectl, sees an empty item there.
		if !n.IsFlowStyle && c.shape == isMap && item.Type() != ast.AliasType && c.at.col <= v.at.col {
			t.fail(c.at, at, "must be indented more than its hyphen")
		}
		v.items = append(v.items, c)
	}
	v.depth++
	return v
}

func (t *tree) mapping(path string, at pos, pairs []*ast.MappingValueNode) *value {
	v := &value{shape: isMap, at: at, size: 1}
	seen := map[string]int{}
	for i, p := range pairs {
		keyAt := t.src.posOf(p.Key.GetToken())
		if i == 0 && !p.IsFlowStyle {
			v.at = keyAt // the parser's own place is the colon's
		}
		name, ok := t.key(path, keyAt, p.Key)
		if !ok {
			continue
		}
		member := strings.TrimPrefix(path+"."+name, ".")
		if line, dup := seen[name]; dup {
			t.fail(keyAt, member, fmt.Sprintf("was given before, in line %d", line))
			continue
		}
		seen[name] = keyAt.line
		v.fields = append(v.fields, field{name: name, at: keyAt, val: t.child(member, v, p.Value)})
	}
	v.depth++
	return v
}

// child builds one member and adds it to its parent's size and depth.
func (t *tree) child(path string, parent *value, n ast.Node) *value {
	c := t.value(path, n)
	parent.depth = max(parent.depth, c.depth)
	if parent.size += c.size; parent.size > math.MaxInt32 {
		parent.size = math.MaxInt32
	}
	return c
}

func (t *tree) key(path string, at pos, k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		if t.src.unfilled != nil {
			if written, names := t.src.unfilled(k.Value); len(names) > 0 {
				if len(t.errs) < MaxErrors {
					e := t.src.errorAt(at, path, fmt.Sprintf("the name of a field is not known: %s has no value", Clip(written)))
					e.Unfilled = names
					t.errs = append(t.errs, e)
				}
				return "", false
			}
		}
		if len(k.Value) <= maxKey {
			return k.Value, true
		}
		t.fail(at, path, fmt.Sprintf("has a key of %d bytes; at most %d are read", len(k.Value), maxKey))
	case *ast.MergeKeyNode:
		t.fail(at, path, "merge keys (<<) are not accepted: write the fields out")
	default:
		t.fail(at, path, "a key must be a string: quote it")
	}
	return "", false
}
