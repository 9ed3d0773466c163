package predict

import (
	"maps"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// RequestsOf are a few requests that stand for all that the routes of a virtual host tell
// apart: for each route one that its match takes, by POST as well where it takes any method, and for each condition of it one that
// only that condition keeps out, but one for all conditions on the method, or the host. Which takes
// them is another question: one before may.
func RequestsOf(h *routev3.VirtualHost) []Request {
	var list []Request
	seen := map[string]bool{}
	add := func(r Request) {
		if text := r.String(); wellFormed(r.Path) && !seen[text] {
			seen[text] = true
			list = append(list, r)
		}
	}
	for _, domain := range h.GetDomains()[:min(1, len(h.GetDomains()))] {
		for _, route := range h.GetRoutes() {
			m := route.GetMatch()
			taken := taken(m, domain)
			add(taken)
			if anyMethod(m) { // what is sent again depends on it
				post := taken
				post.Method = "POST"
				add(post)
			}
			for _, missed := range misses(m, taken) {
				add(missed)
			}
		}
	}
	return list
}

// anyMethod reports whether a match looks at no method.
func anyMethod(m *routev3.RouteMatch) bool {
	return m.GetGrpc() == nil && !slices.ContainsFunc(m.GetHeaders(), func(h *routev3.HeaderMatcher) bool { return h.GetName() == ":method" })
}

// String is the request as a line of curl's.
func (r Request) String() string {
	text := r.Method + " " + r.Authority + r.Path
	if r.Scheme != "http" {
		text = r.Method + " " + r.Scheme + "://" + r.Authority + r.Path
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		for _, value := range r.Headers[name] {
			text += " -H '" + name + ": " + value + "'"
		}
	}
	return text
}

// wellFormed reports whether a path comes to the routes as it was sent: it is neither
// written anew nor refused before (D20).
func wellFormed(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, `%\;#`) && !strings.Contains(path, "//") && !strings.Contains(path+"/", "/./") && !strings.Contains(path+"/", "/../") &&
		!strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' })
}

// anyHost is what a request is sent to where all hosts are taken.
const anyHost = "any.example"

// taken is a request that a match takes, as far as one can be made up.
func taken(m *routev3.RouteMatch, domain string) Request {
	r := Request{Method: "GET", Scheme: "http", Authority: domain, Headers: map[string][]string{}}
	if domain == "*" {
		r.Authority = anyHost
	}
	if m.GetGrpc() != nil {
		r.Method, r.Headers["content-type"] = "POST", []string{"application/grpc"}
	}
	paths := []string{pathOf(m)}
	for _, h := range m.GetHeaders() {
		value, ok := valueFor(h)
		switch name := strings.ToLower(h.GetName()); {
		case name == ":path":
			paths = append(paths, value)
		case strings.HasPrefix(name, ":"):
			if why, err := passesHeader(h, r); why != "" || err != nil { // else one before has chosen
				r.set(name, value)
			}
		case ok && r.values(name) == nil:
			r.set(name, value)
		}
	}
	query := ""
	for _, q := range m.GetQueryParameters() {
		query += "&" + q.GetName() + "=" + textFor(q.GetStringMatch())
	}
	if query != "" {
		query = "?" + query[1:]
	}
	r.Path = paths[0] + query
	for _, p := range paths { // the match and what is beside it each have an idea of the path
		with := r
		with.Path = p + query
		if why, err := passes(m, with); why == "" && err == nil {
			return with
		}
	}
	return r
}

// set is the opposite of values.
func (r *Request) set(name, value string) {
	switch name {
	case ":method":
		r.Method = value
	case ":scheme":
		r.Scheme = value
	case ":authority":
		r.Authority = value
	default:
		r.Headers[name] = []string{value}
	}
}

// misses are requests that differ from one that is taken in one thing.
func misses(m *routev3.RouteMatch, taken Request) []Request {
	var list []Request
	path, query, _ := strings.Cut(taken.Path, "?")
	with := func(path, query string) {
		r := taken
		if r.Path = path; query != "" {
			r.Path += "?" + query
		}
		list = append(list, r)
	}
	switch {
	case m.GetPath() != "" || m.GetSafeRegex() != nil:
		with(path+"x", query)
	case len(m.GetPrefix()) > 1:
		with(path[:len(path)-1], query)
	}
	if m.GetGrpc() != nil {
		list = append(list, taken.without("content-type"))
	}
	missed := map[string]bool{}
	for _, h := range m.GetHeaders() {
		name := strings.ToLower(h.GetName())
		if strings.HasPrefix(name, ":") {
			for _, value := range others[name] {
				r := taken
				r.set(name, value)
				if why, err := passesHeader(h, r); why != "" && err == nil && !missed[name] {
					list, missed[name] = append(list, r), true
					break
				}
			}
			continue
		}
		list = append(list, taken.without(name))
		other := taken.without(name)
		if other.set(name, "signet-other"); h.GetInvertMatch() {
			inverted := &routev3.HeaderMatcher{Name: h.GetName(), HeaderMatchSpecifier: h.GetHeaderMatchSpecifier()}
			value, _ := valueFor(inverted)
			other.set(name, value)
		}
		if _, present := h.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); !present || h.GetInvertMatch() {
			list = append(list, other)
		}
	}
	pairs := strings.Split(query, "&")
	for i := range m.GetQueryParameters() {
		with(path, strings.Join(slices.Delete(slices.Clone(pairs), i, i+1), "&"))
	}
	return list
}

// others are values of pseudo headers, to find one that a match does not take.
var others = map[string][]string{
	":method": {"GET", "POST", "DELETE"}, ":scheme": {"http", "https"}, ":authority": {anyHost, "other.example"},
}

func (r Request) without(name string) Request {
	r.Headers = maps.Clone(r.Headers)
	delete(r.Headers, name)
	return r
}

func pathOf(m *routev3.RouteMatch) string {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		return p.Prefix
	case *routev3.RouteMatch_Path:
		return p.Path
	case *routev3.RouteMatch_SafeRegex:
		return Example(p.SafeRegex.GetRegex())
	}
	return ""
}

// valueFor is a value that a matcher takes; false where it takes what is not there.
func valueFor(h *routev3.HeaderMatcher) (string, bool) {
	value := "1"
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_PresentMatch:
		return value, m.PresentMatch != h.GetInvertMatch()
	case *routev3.HeaderMatcher_StringMatch:
		value = textFor(m.StringMatch)
	case *routev3.HeaderMatcher_RangeMatch:
		value = strconv.FormatInt(m.RangeMatch.GetStart(), 10)
	}
	if !h.GetInvertMatch() {
		return value, true
	}
	for _, other := range others[strings.ToLower(h.GetName())] {
		if other != value {
			return other, true
		}
	}
	return "signet-other", true
}

// textFor is a text that a matcher takes; nil takes any.
func textFor(m *matcherv3.StringMatcher) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return p.Exact
	case *matcherv3.StringMatcher_Prefix:
		return p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		return "a" + p.Suffix
	case *matcherv3.StringMatcher_SafeRegex:
		return Example(p.SafeRegex.GetRegex())
	}
	return "1"
}

// mostExample bounds a text that is made up for an expression.
const mostExample = 256

// Example is a text that an expression matches, "" where none is found; whoever uses it
// compares.
func Example(regex string) string {
	re, err := syntax.Parse(regex, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	example(&b, re)
	return b.String()
}

func example(b *strings.Builder, re *syntax.Regexp) {
	if b.Len() > mostExample {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		b.WriteRune(oneOf(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('a')
	case syntax.OpPlus, syntax.OpCapture:
		example(b, re.Sub[0])
	case syntax.OpRepeat:
		for range min(re.Min, mostExample) {
			example(b, re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			example(b, sub)
		}
	case syntax.OpAlternate:
		example(b, re.Sub[0])
	default: // what may be left out, and places
	}
}

// oneOf is a character of a class, given as pairs of a first and a last one: one that is
// ordinary in a path, if any is.
func oneOf(pairs []rune) rune {
	for _, c := range "a1A-_.~/" {
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] <= c && c <= pairs[i+1] {
				return c
			}
		}
	}
	if len(pairs) == 0 {
		return 'a'
	}
	return pairs[0]
}
