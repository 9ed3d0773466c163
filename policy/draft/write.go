package draft

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"signet.example/internal/plain"
	"signet.example/policy"
	"signet.example/proxy"
)

// form is where rules come from.
type form struct {
	name string // of the files
	head string // of a file, where %s is whose it is
}

// mostWhy bounds the reasons that are written above a rule.
const mostWhy = 10

// write makes the files of one virtual node or gateway: its rules, and their tests.
func (f form) write(callee proxy.Ref, rules []rule, example Example) []File {
	pkg := policy.PackageName(callee.Mesh + "/" + callee.Name)
	what := "virtual node"
	if callee.Gateway() {
		what = "virtual gateway"
	}
	var b, tests strings.Builder
	comment(&b, fmt.Sprintf(f.head, fmt.Sprintf("%s %s of mesh %s", what, callee.Name, callee.Mesh)))
	fmt.Fprintf(&b, "\n%s\n", pkg)
	comment(&tests, fmt.Sprintf("Tests of %s.rego: each rule allows its caller's call, and not another one's.\n%s.", f.name, strings.TrimPrefix(Written, "# ")))
	fmt.Fprintf(&tests, "\n%s\n", testPackage(callee, f.name))
	names, tested := map[string]bool{}, map[string]bool{}
	allow := strings.Replace(pkg, "package ", "data.", 1) + "." + policy.Allow
	for _, r := range rules {
		name := unique(names, clip(plain.Line(r.String())), " (%d)")
		b.WriteByte('\n')
		for _, why := range r.why[:min(len(r.why), mostWhy)] {
			comment(&b, why)
		}
		if more := len(r.why) - mostWhy; more > 0 {
			comment(&b, fmt.Sprintf("and %d more", more))
		}
		fmt.Fprintf(&b, "allow contains %s if {\n\t%s\n}\n", quote(name), strings.Join(r.conditions(), "\n\t"))
		fmt.Fprintf(&tests, "\n%s", r.test(unique(tested, "test_"+slug(name), "_%d"), name, allow, example))
	}
	folder := callee.Mesh + "/" + callee.Name + "/"
	return []File{{folder + f.name + ".rego", b.String(), len(rules)}, {folder + f.name + "_test.rego", tests.String(), 0}}
}

// testPackage is that of a node's tests.
func testPackage(callee proxy.Ref, form string) string {
	return policy.PackageName(callee.Mesh + "/" + callee.Name + "/" + form + "_test")
}

// comment writes a text as lines of comment.
func comment(b *strings.Builder, text string) {
	for line := range strings.Lines(text) {
		b.WriteString("# " + plain.Line(strings.TrimSuffix(line, "\n")) + "\n")
	}
}

// mostName is shorter than a rule's name may be, for what makes it unique.
const mostName = 180

func clip(s string) string {
	for len(s) > mostName {
		_, last := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-last]
	}
	return strings.TrimSpace(s)
}

// unique is a name that none has yet.
func unique(taken map[string]bool, name, more string) string {
	own := name
	for i := 2; taken[own]; i++ {
		own = name + fmt.Sprintf(more, i)
	}
	taken[own] = true
	return own
}

// slug is a text as the name of a rule.
func slug(s string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(s) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else if !strings.HasSuffix(b.String(), "_") {
			b.WriteByte('_')
		}
	}
	return strings.Trim(b.String(), "_")
}

// call is one as a test gives it to a policy.
type call struct {
	caller, method, host, path string
	port, listener             uint32
}

func (c call) input() string {
	source := ""
	if c.caller != "" {
		source = `"spiffe_id": ` + quote(c.caller)
	}
	if c.port != 0 {
		return fmt.Sprintf(`{"source": {%s}, "connection": {"protocol": "tcp", "port": %d}}`, source, c.port)
	}
	host := ""
	if c.host != "" {
		host = `"host": ` + quote(c.host) + ", "
	}
	port := ""
	if c.listener != 0 {
		port = fmt.Sprintf(`, "port": %d`, c.listener)
	}
	return fmt.Sprintf(`{"source": {%s}, "request": {"method": %s, %s"path": %s%s}}`, source, quote(c.method), host, quote(c.path), port)
}

// test is one rule's: a call that it allows, and those that differ from it in one thing, which
// it does not.
func (r rule) test(test, name, allow string, example Example) string {
	good, ok := r.example(example)
	if !ok {
		return fmt.Sprintf("# No call is known that this rule allows: %s\n", plain.Line(name))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s if {\n\trule := %s\n\trule in %s with input as %s\n", test, quote(name), allow, good.input())
	for _, bad := range r.others(good) {
		fmt.Fprintf(&b, "\tnot rule in %s with input as %s\n", allow, bad.input())
	}
	return b.String() + "}\n"
}

// example is a call that the rule allows, if one is found.
func (r rule) example(of Example) (call, bool) {
	c := call{caller: r.caller, method: "GET", path: "/", port: r.port, listener: r.listener, host: r.host.Exact}
	if r.host.Suffix != "" {
		c.host = "www" + r.host.Suffix
	}
	if len(r.methods) > 0 {
		c.method = r.methods[0]
	}
	for _, p := range r.paths {
		given := p.Exact + p.Prefix
		switch {
		case p.template != "":
			given = strings.NewReplacer("**", "1", "*", "1").Replace(p.template)
		case p.Regex != "" && of != nil:
			given = of(p.Regex)
		}
		if strings.HasPrefix(given, "/") && r.takesPath(given) {
			c.path = given
		}
	}
	return c, r.takesPath(c.path)
}

// others are calls that the rule does not allow: each differs from the example in one thing.
func (r rule) others(good call) []call {
	var list []call
	with := func(change func(*call)) {
		c := good
		change(&c)
		list = append(list, c)
	}
	if r.caller != "" {
		with(func(c *call) { c.caller += "-other" })
		with(func(c *call) { c.caller = "" })
	}
	if r.port != 0 {
		with(func(c *call) { c.port = c.port%65535 + 1 })
		return list
	}
	if r.listener != 0 {
		with(func(c *call) { c.listener = c.listener%65535 + 1 })
	}
	if good.host != "" {
		with(func(c *call) { c.host = "other.example.invalid" })
	}
	for _, m := range []string{"GET", "POST", "DELETE", "PATCH"} {
		if len(r.methods) > 0 && !slices.Contains(r.methods, m) {
			with(func(c *call) { c.method = m })
			break
		}
	}
	for _, p := range []string{good.path + "/other", good.path + "x", "/other", "/"} {
		if !r.takesPath(p) {
			with(func(c *call) { c.path = p })
			break
		}
	}
	return list
}

func (r rule) takesPath(given string) bool {
	return !slices.ContainsFunc(r.paths, func(p path) bool { return !p.takes(given) })
}
