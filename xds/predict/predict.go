// Package predict tells what Envoy does with a request by a RouteConfiguration of ours:
// which route takes it, and why those before it do not. It knows what our translation
// uses and no more; what else stands in a configuration is an error, not a guess.
//
// Values are immutable; nothing here locks.
package predict

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Request is what is asked, as it is once the HTTP manager has normalised it.
type Request struct {
	Method, Scheme string
	Authority      string // host, with a port where the caller sends one
	Path           string // with the query
	// Headers by their names in lower case, with those that filters set; of several values
	// those that stand first.
	Headers map[string][]string
}

// Outcome is what becomes of it.
type Outcome struct {
	VirtualHost string // "" if no service has the host: 404
	Route       *routev3.Route
	// Retry is by what it is sent again, nil where it is sent once.
	Retry *routev3.RetryPolicy
	// Passed are the routes that were looked at before, and why each was not taken.
	Passed []Passed
}

// Passed is a route that did not take a request.
type Passed struct{ Route, Why string }

// WhyNot is why a route was looked at and not taken, "" if it was not. Of one of App Mesh's
// routes there may be several of Envoy's, each for less than the one behind it: the last
// one's reason is that of all.
func (o Outcome) WhyNot(route string) string {
	for _, p := range slices.Backward(o.Passed) {
		if p.Route == route {
			return p.Why
		}
	}
	return ""
}

// ErrUnknown is returned for a configuration that the package does not understand.
var ErrUnknown = errors.New("it uses what cannot be predicted")

// Of returns what a configuration does with a request.
func Of(rc *routev3.RouteConfiguration, r Request) (Outcome, error) {
	host := hostOf(rc, r.Authority)
	if host == nil {
		return Outcome{}, nil
	}
	out := Outcome{VirtualHost: host.GetName()}
	for _, route := range host.GetRoutes() {
		why, err := passes(route.GetMatch(), r)
		if err != nil {
			return out, fmt.Errorf("route %s: %w", route.GetName(), err)
		}
		if why == "" {
			out.Route, out.Retry = route, retryOf(host, route, r)
			return out, nil
		}
		out.Passed = append(out.Passed, Passed{route.GetName(), why})
	}
	return out, nil
}

// hostOf is the virtual host of an authority: Envoy compares it in lower case, first as it
// is, then "*".
func hostOf(rc *routev3.RouteConfiguration, authority string) *routev3.VirtualHost {
	var any *routev3.VirtualHost
	for _, h := range rc.GetVirtualHosts() {
		for _, d := range h.GetDomains() {
			switch d {
			case strings.ToLower(authority):
				return h
			case "*":
				any = h
			}
		}
	}
	return any
}

// passes is why a request is not taken, "" if it is.
func passes(m *routev3.RouteMatch, r Request) (string, error) {
	path, query, _ := strings.Cut(r.Path, "?")
	why, err := passesPath(m, path)
	if why != "" || err != nil {
		return why, err
	}
	if m.GetGrpc() != nil && !isGRPC(r.Headers["content-type"]) {
		return "it is no call of gRPC", nil
	}
	for _, h := range m.GetHeaders() {
		if why, err := passesHeader(h, r); why != "" || err != nil {
			return why, err
		}
	}
	for _, q := range m.GetQueryParameters() {
		if why, err := passesQuery(q, query); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

func passesPath(m *routev3.RouteMatch, path string) (string, error) {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if !strings.HasPrefix(path, p.Prefix) {
			return fmt.Sprintf("the path does not begin with %s", p.Prefix), nil
		}
	case *routev3.RouteMatch_Path:
		if path != p.Path {
			return "the path is not " + p.Path, nil
		}
	case *routev3.RouteMatch_SafeRegex:
		ok, err := wholly(p.SafeRegex.GetRegex(), path)
		if !ok && err == nil {
			return "the path does not match " + p.SafeRegex.GetRegex(), nil
		}
		return "", err
	default:
		return "", fmt.Errorf("%w: a path by %T", ErrUnknown, p)
	}
	return "", nil
}

// isGRPC: application/grpc, with anything behind + or ; (Envoy, hasGrpcContentType).
func isGRPC(types []string) bool {
	rest, ok := strings.CutPrefix(strings.Join(types, ","), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// values are a header's, with the pseudo headers.
func (r Request) values(name string) []string {
	switch name {
	case ":method":
		return []string{r.Method}
	case ":scheme":
		return []string{r.Scheme}
	case ":authority":
		return []string{r.Authority}
	case ":path":
		return []string{r.Path}
	}
	return r.Headers[name]
}

func passesHeader(h *routev3.HeaderMatcher, r Request) (string, error) {
	values := r.values(strings.ToLower(h.GetName()))
	there := len(values) > 0
	if m, ok := h.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); ok {
		if (there == m.PresentMatch) != h.GetInvertMatch() {
			return "", nil
		}
		return fmt.Sprintf("header %s is %sthere", h.GetName(), map[bool]string{false: "not "}[there]), nil
	}
	if !there { // what is not there has no value that could be another one
		return fmt.Sprintf("header %s is not there", h.GetName()), nil
	}
	// Of several values one that matches is enough (Envoy 1.40: measured).
	one := false
	what := ""
	for _, v := range values {
		ok, is, err := matchesHeader(h, v)
		if err != nil {
			return "", err
		}
		one, what = one || ok, is
	}
	if one != h.GetInvertMatch() {
		return "", nil
	}
	return fmt.Sprintf("header %s is %q, which is %s%s", h.GetName(), strings.Join(values, ", "), map[bool]string{false: "not "}[one], what), nil
}

func matchesHeader(h *routev3.HeaderMatcher, value string) (ok bool, what string, err error) {
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		return matches(m.StringMatch, value)
	case *routev3.HeaderMatcher_RangeMatch:
		n, err := strconv.ParseInt(value, 10, 64)
		is := fmt.Sprintf("from %d to below %d", m.RangeMatch.GetStart(), m.RangeMatch.GetEnd())
		return err == nil && n >= m.RangeMatch.GetStart() && n < m.RangeMatch.GetEnd(), is, nil
	default:
		return false, "", fmt.Errorf("%w: a header by %T", ErrUnknown, m)
	}
}

// matches reports whether a value is as a matcher says, and what that is in words.
func matches(m *matcherv3.StringMatcher, value string) (ok bool, what string, err error) {
	fold := func(s string) string {
		if m.GetIgnoreCase() {
			return strings.ToLower(s)
		}
		return s
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return fold(value) == fold(p.Exact), fmt.Sprintf("%q", p.Exact), nil
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(fold(value), fold(p.Prefix)), fmt.Sprintf("%q and more", p.Prefix), nil
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(fold(value), fold(p.Suffix)), fmt.Sprintf("anything that ends in %q", p.Suffix), nil
	case *matcherv3.StringMatcher_SafeRegex:
		ok, err = wholly(p.SafeRegex.GetRegex(), value)
		return ok, "of " + p.SafeRegex.GetRegex(), err
	default:
		return false, "", fmt.Errorf("%w: a text by %T", ErrUnknown, p)
	}
}

// wholly reports whether an expression matches all of a text, as Envoy asks of RE2.
func wholly(regex, s string) (bool, error) {
	re, err := regexp.Compile(`^(?:` + regex + `)$`)
	if err != nil {
		return false, fmt.Errorf("%w: the expression %s", ErrUnknown, regex)
	}
	re.Longest()
	at := re.FindStringIndex(s)
	return at != nil && at[0] == 0 && at[1] == len(s), nil
}

// passesQuery compares the first value of a parameter, as it is written.
func passesQuery(q *routev3.QueryParameterMatcher, query string) (string, error) {
	value, there := "", false
	for pair := range strings.SplitSeq(query, "&") {
		name, v, _ := strings.Cut(pair, "=")
		if name == q.GetName() && query != "" {
			value, there = v, true
			break
		}
	}
	switch m := q.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_PresentMatch:
		if there != m.PresentMatch {
			return fmt.Sprintf("query parameter %s is not there", q.GetName()), nil
		}
	case *routev3.QueryParameterMatcher_StringMatch:
		ok, what, err := matches(m.StringMatch, value)
		switch {
		case err != nil:
			return "", err
		case !there:
			return fmt.Sprintf("query parameter %s is not there", q.GetName()), nil
		case !ok:
			return fmt.Sprintf("query parameter %s is %q, not %s", q.GetName(), value, what), nil
		}
	default:
		return "", fmt.Errorf("%w: a query parameter by %T", ErrUnknown, m)
	}
	return "", nil
}

// WithoutPort is a host as a gateway's routes see it: its manager takes the port off, and a
// dot at the end (xds). In an address of IPv6 colons stand between brackets.
func WithoutPort(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		authority = authority[:i]
	}
	return strings.TrimSuffix(authority, ".")
}
