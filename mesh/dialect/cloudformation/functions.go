package cloudformation

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"signet.example/internal/manifest"
)

// Tags are the short forms of functions.
var Tags = func() map[string]string {
	short := map[string]string{"!Ref": "Ref", "!Condition": "Condition"}
	for _, name := range []string{
		"And", "Base64", "Cidr", "Equals", "FindInMap", "ForEach", "GetAZs", "GetAtt", "If", "ImportValue", "Join", "Length",
		"Not", "Or", "Select", "Split", "Sub", "ToJsonString", "Transform",
	} {
		short["!"+name] = "Fn::" + name
	}
	return short
}()

// eval is a value with its functions evaluated; null where it is AWS::NoValue.
func (t *template) eval(n manifest.Node) manifest.Node {
	if t.values++; t.values > maxValues || t.bytes > maxBytes || t.depth > maxNested {
		return n.Opaque("${…}", "the template expands to too much")
	}
	t.depth++
	defer func() { t.depth-- }()
	switch n.Is() {
	case manifest.Mapping:
		return t.mapping(n)
	case manifest.List:
		var items []manifest.Node
		for _, item := range n.Items() {
			if v := t.eval(item); v.Is() != manifest.Null {
				items = append(items, v)
			}
		}
		return n.List(items...)
	}
	return n
}

func (t *template) mapping(n manifest.Node) manifest.Node {
	members := n.Members()
	if len(members) == 1 && (members[0].Name == "Ref" || strings.HasPrefix(members[0].Name, "Fn::")) {
		v := t.call(n, members[0].Name, members[0].Value)
		t.bytes += len(v.Text())
		return v
	}
	var out []manifest.Member
	for _, m := range members {
		if strings.HasPrefix(m.Name, "Fn::") { // beside other members it adds some, such as those of a file
			return n.Opaque("${"+m.Name+"}", "only AWS knows what "+m.Name+" adds")
		}
		if m.Value = t.eval(m.Value); m.Value.Is() != manifest.Null {
			out = append(out, m)
		}
	}
	return n.Mapping(out...)
}

// call evaluates a function where it stands.
func (t *template) call(at manifest.Node, name string, arg manifest.Node) manifest.Node {
	switch name {
	case "Ref":
		return t.ref(at, arg.Text())
	case "Fn::GetAtt":
		return t.getAtt(at, arg)
	case "Fn::Sub":
		return t.sub(at, arg)
	case "Fn::If":
		return t.choose(at, arg.Items())
	case "Fn::Join":
		return t.join(at, t.arguments(arg, 2))
	case "Fn::Split":
		return t.split(at, t.arguments(arg, 2))
	case "Fn::Select":
		return t.pick(at, t.arguments(arg, 2))
	case "Fn::FindInMap":
		return t.findInMap(at, t.arguments(arg, 3))
	case "Fn::ImportValue":
		return t.importValue(at, t.eval(arg))
	}
	return at.Opaque("${"+name+"}", "only AWS evaluates "+name)
}

// arguments are those of a function, evaluated; none where there are fewer than least.
func (t *template) arguments(arg manifest.Node, least int) []manifest.Node {
	items := arg.Items()
	if len(items) < least {
		return nil
	}
	for i := range items {
		items[i] = t.eval(items[i])
	}
	return items
}

func malformed(at manifest.Node, name string) manifest.Node {
	return at.Opaque("${"+name+"}", name+" does not have the arguments that it takes")
}

func (t *template) ref(at manifest.Node, name string) manifest.Node {
	if name == "AWS::NoValue" {
		return manifest.Node{}
	}
	if strings.HasPrefix(name, "AWS::") {
		return t.pseudo(at, name)
	}
	if p := t.parameters.Get(name); p.Is() == manifest.Mapping {
		return t.parameter(at, name, p)
	}
	if k, typ, ok := t.ours(name); ok {
		return t.arnOf(at, name, k)
	} else if typ != "" {
		return at.Opaque("${"+name+"}", fmt.Sprintf("%s is an %s, which only AWS names", name, typ))
	}
	return at.Opaque("${"+name+"}", fmt.Sprintf("the template has no parameter and no resource %q", manifest.Clip(name)))
}

// ours reports whether a resource is App Mesh's, and its type.
func (t *template) ours(logical string) (k kind, typ string, ok bool) {
	typ = t.resources.Get(logical).Get("Type").Text()
	rest, ours := strings.CutPrefix(typ, typePrefix)
	if ours {
		k, ok = kinds[rest]
	}
	return k, typ, ok
}

func (t *template) getAtt(at, arg manifest.Node) manifest.Node {
	logical, attribute, _ := strings.Cut(arg.Text(), ".")
	if items := arg.Items(); len(items) == 2 {
		logical, attribute = items[0].Text(), t.eval(items[1]).Text()
	}
	return t.attribute(at, logical, attribute)
}

func (t *template) attribute(at manifest.Node, logical, attribute string) manifest.Node {
	k, typ, ok := t.ours(logical)
	switch {
	case ok && (attribute == k.name || attribute == "MeshName" || attribute == k.parent && attribute != ""):
		return t.nameOf(at, logical, attribute, k)
	case ok && attribute == "Arn":
		return t.arnOf(at, logical, k)
	case typ == "":
		return at.Opaque("${"+logical+"."+attribute+"}", fmt.Sprintf("the template has no resource %q", manifest.Clip(logical)))
	}
	return at.Opaque("${"+logical+"."+attribute+"}", fmt.Sprintf("only AWS knows %s of %s, an %s", manifest.Clip(attribute), logical, typ))
}

// text collects pieces of a string; it is opaque when one of them is.
type text struct {
	b    strings.Builder
	why  string
	room int
}

func (x *text) add(n manifest.Node) {
	switch n.Is() {
	case manifest.Scalar:
	case manifest.Opaque:
		x.because(n.Why())
	default:
		x.because("a list or a mapping stands where text is wanted")
		return
	}
	x.write(n.Text())
}

func (x *text) write(s string) {
	if x.room -= len(s); x.room < 0 {
		x.because("the template expands to too much")
		return
	}
	x.b.WriteString(s)
}

func (x *text) because(why string) {
	if x.why == "" {
		x.why = why
	}
}

func (x *text) at(n manifest.Node) manifest.Node {
	if x.why != "" {
		return n.Opaque(x.b.String(), x.why)
	}
	return n.String(x.b.String())
}

func (t *template) text() *text { return &text{room: maxBytes - t.bytes} }

var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// sub is a text with variables, or that and a mapping of some of them.
func (t *template) sub(at, arg manifest.Node) manifest.Node {
	pattern, own := arg, manifest.Node{}
	if items := arg.Items(); len(items) == 2 {
		pattern, own = items[0], items[1]
	}
	if pattern.Is() == manifest.Opaque {
		return at.Opaque(pattern.Text(), pattern.Why())
	}
	if pattern.Is() != manifest.Scalar {
		return malformed(at, "Fn::Sub")
	}
	out, rest := t.text(), pattern.Text()
	for {
		m := variable.FindStringSubmatchIndex(rest)
		if m == nil || out.room < 0 {
			break
		}
		out.write(rest[:m[0]])
		name := strings.TrimSpace(rest[m[2]:m[3]])
		rest = rest[m[1]:]
		if literal, ok := strings.CutPrefix(name, "!"); ok {
			out.write("${" + literal + "}")
			continue
		}
		out.add(t.variable(at, name, own))
	}
	out.write(rest)
	return out.at(at)
}

func (t *template) variable(at manifest.Node, name string, own manifest.Node) manifest.Node {
	for _, m := range own.Members() {
		if m.Name == name {
			return t.eval(m.Value)
		}
	}
	if t.values++; t.values > maxValues {
		return at.Opaque("${"+name+"}", "the template expands to too much")
	}
	if logical, attribute, ok := strings.Cut(name, "."); ok {
		return t.attribute(at, logical, attribute)
	}
	return t.ref(at, name)
}

func (t *template) choose(at manifest.Node, args []manifest.Node) manifest.Node {
	if len(args) != 3 {
		return malformed(at, "Fn::If")
	}
	switch is, why := t.condition(args[0].Text()); is {
	case yes:
		return t.eval(args[1])
	case no:
		return t.eval(args[2])
	default:
		return at.Opaque("${"+args[0].Text()+"}", why)
	}
}

func (t *template) join(at manifest.Node, args []manifest.Node) manifest.Node {
	if len(args) != 2 || args[0].Is() != manifest.Scalar {
		return malformed(at, "Fn::Join")
	}
	if args[1].Is() != manifest.List {
		return at.Opaque("${Fn::Join}", cmp.Or(args[1].Why(), "Fn::Join has no list"))
	}
	out := t.text()
	for i, item := range args[1].Items() {
		if i > 0 {
			out.write(args[0].Text())
		}
		out.add(item)
	}
	return out.at(at)
}

func (t *template) split(at manifest.Node, args []manifest.Node) manifest.Node {
	if len(args) != 2 || args[0].Is() != manifest.Scalar || args[0].Text() == "" {
		return malformed(at, "Fn::Split")
	}
	if args[1].Is() != manifest.Scalar {
		return at.Opaque("${Fn::Split}", cmp.Or(args[1].Why(), "Fn::Split has no text"))
	}
	var items []manifest.Node
	for item := range strings.SplitSeq(args[1].Text(), args[0].Text()) {
		if t.values++; t.values > maxValues {
			return at.Opaque("${Fn::Split}", "the template expands to too much")
		}
		items = append(items, at.String(item))
	}
	return at.List(items...)
}

func (t *template) pick(at manifest.Node, args []manifest.Node) manifest.Node {
	if len(args) != 2 || args[0].Is() != manifest.Scalar {
		return malformed(at, "Fn::Select")
	}
	i, err := strconv.Atoi(args[0].Text())
	switch items := args[1].Items(); {
	case args[1].Is() != manifest.List:
		return at.Opaque("${Fn::Select}", cmp.Or(args[1].Why(), "Fn::Select has no list"))
	case err != nil || i < 0 || i >= len(items):
		return at.Opaque("${Fn::Select}", fmt.Sprintf("Fn::Select has no item %s", manifest.Clip(args[0].Text())))
	default:
		return items[i]
	}
}

func (t *template) findInMap(at manifest.Node, args []manifest.Node) manifest.Node {
	if len(args) < 3 {
		return malformed(at, "Fn::FindInMap")
	}
	found := t.mappings
	for _, key := range args[:3] {
		if key.Is() != manifest.Scalar {
			return at.Opaque("${Fn::FindInMap}", cmp.Or(key.Why(), "a key of Fn::FindInMap is no text"))
		}
		found = found.Get(key.Text())
	}
	switch {
	case found.Is() != manifest.Null:
		return found
	case len(args) == 4:
		return args[3].Get("DefaultValue")
	}
	return at.Opaque("${Fn::FindInMap}", fmt.Sprintf("the template's Mappings have no %s, %s, %s", manifest.Clip(args[0].Text()), manifest.Clip(args[1].Text()), manifest.Clip(args[2].Text())))
}

func (t *template) importValue(at, name manifest.Node) manifest.Node {
	if name.Is() != manifest.Scalar {
		return at.Opaque("${ImportValue:"+name.Text()+"}", cmp.Or(name.Why(), "the name of Fn::ImportValue is no text"))
	}
	if value, ok := t.drafts.Options.Exports[name.Text()]; ok {
		return at.String(value)
	}
	switch value := t.drafts.Exported(name.Text()); value.Is() {
	case manifest.Scalar:
		return at.String(value.Text())
	case manifest.Opaque:
		return at.Opaque(value.Text(), value.Why())
	}
	return at.Opaque("${ImportValue:"+name.Text()+"}", fmt.Sprintf("no value is given for what another stack exports as %q: --import-value NAME=VALUE, or its template", manifest.Clip(name.Text())))
}
