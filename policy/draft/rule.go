package draft

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"signet.example/mesh"
)

// rule allows one caller something at one virtual node or gateway.
type rule struct {
	caller string // its SPIFFE ID; "" for anybody
	by     string // the caller as people call it
	// port is that of connections; 0 of requests, which are all that follows.
	port uint32
	// listener is the port of the one to which they come; 0 for any.
	listener uint32
	host     mesh.HostMatch
	methods  []string // sorted; none for any
	paths    []path   // all must hold
	why      []string
}

// path is what a rule asks of a path: a match of App Mesh's, or a template, in which * stands
// for one segment and ** at its end for all that follow.
type path struct {
	mesh.PathMatch

	template string
}

func (p path) takes(given string) bool {
	if p.template == "" {
		return p.Takes(given)
	}
	have, want := strings.Split(given, "/"), strings.Split(p.template, "/")
	for i, w := range want {
		switch {
		case w == "**":
			return i < len(have)
		case i >= len(have) || w != "*" && w != have[i]:
			return false
		}
	}
	return len(have) == len(want)
}

// implies reports whether what p takes o takes, too, as far as can be told.
func (p path) implies(o path) bool {
	switch {
	case p == o:
		return true
	case o.template != "" || o.Regex != "" || o.Exact != "":
		return p.Exact != "" && o.takes(p.Exact)
	}
	begin := p.Prefix + p.Exact
	if p.template != "" {
		begin, _, _ = strings.Cut(p.template, "*")
	}
	return p.Regex == "" && strings.HasPrefix(begin, o.Prefix)
}

// covers reports whether r allows all that o does, as far as can be told.
func (r rule) covers(o rule) bool {
	if r.caller != "" && r.caller != o.caller || r.port != o.port || r.listener != 0 && r.listener != o.listener {
		return false
	}
	if r.host != (mesh.HostMatch{}) && r.host != o.host {
		return false
	}
	for _, m := range o.methods {
		if len(r.methods) > 0 && !slices.Contains(r.methods, m) {
			return false
		}
	}
	if len(r.methods) > 0 && len(o.methods) == 0 {
		return false
	}
	return !slices.ContainsFunc(r.paths, func(p path) bool {
		return !slices.ContainsFunc(o.paths, func(of path) bool { return of.implies(p) })
	})
}

// conditions are the lines of its body.
func (r rule) conditions() []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if r.caller != "" {
		add("input.source.spiffe_id == %s", quote(r.caller))
	}
	if r.port != 0 {
		add("input.connection.port == %d", r.port)
		return lines
	}
	identities := len(lines)
	if r.listener != 0 {
		add("input.request.port == %d", r.listener)
	}
	switch {
	case r.host.Exact != "":
		add("input.request.host == %s", quote(r.host.Exact))
	case r.host.Suffix != "":
		add("endswith(input.request.host, %s)", quote(r.host.Suffix))
	}
	switch len(r.methods) {
	case 0:
	case 1:
		add("input.request.method == %s", quote(r.methods[0]))
	default:
		var list []string
		for _, m := range r.methods {
			list = append(list, quote(m))
		}
		add("input.request.method in {%s}", strings.Join(list, ", "))
	}
	for _, p := range r.paths {
		lines = append(lines, p.condition())
	}
	if len(lines) == identities {
		add("input.request.path") // a request, and no connection of tcp
	}
	return lines
}

func (p path) condition() string {
	switch {
	case p.template != "":
		var b strings.Builder
		for _, c := range p.template {
			if strings.ContainsRune(`?[]{}\!`, c) {
				b.WriteByte('\\')
			}
			b.WriteRune(c)
		}
		return fmt.Sprintf("glob.match(%s, [\"/\"], input.request.path)", quote(b.String()))
	case p.Exact != "":
		return "input.request.path == " + quote(p.Exact)
	case p.Regex != "":
		return fmt.Sprintf("regex.match(%s, input.request.path)", raw("^(?:"+p.Regex+")$"))
	}
	return fmt.Sprintf("startswith(input.request.path, %s)", quote(p.Prefix))
}

// String is what it allows in a few words, as which it is named.
func (r rule) String() string {
	if r.port != 0 {
		return fmt.Sprintf("%s may connect to port %d", r.by, r.port)
	}
	what := strings.Join(r.methods, ", ")
	if what == "" {
		what = "call"
	}
	where := r.host.Exact
	if r.host.Suffix != "" {
		where = "*" + r.host.Suffix
	}
	for i, p := range r.paths {
		if i > 0 {
			where += " and "
		}
		switch {
		case p.template != "":
			where += p.template
		case p.Exact != "":
			where += p.Exact
		case p.Regex != "":
			where += "~ " + p.Regex
		default:
			where += p.Prefix + "*"
		}
	}
	if r.listener != 0 {
		where += fmt.Sprintf(" at port %d", r.listener)
	}
	return r.by + " may " + strings.TrimSpace(what+" "+strings.TrimSpace(where))
}

// quote returns a text as a string of Rego.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(fmt.Sprintf("internal error: a text that cannot be quoted: %v", err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// raw returns a text as a raw string of Rego, or as quote does where it can be none.
func raw(s string) string {
	if strings.ContainsAny(s, "`\n\r") {
		return quote(s)
	}
	return "`" + s + "`"
}
