package draft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh"
	"signet.example/proxy"
)

// Seen is one decision: a call as it was, and what became of it.
type Seen struct {
	// Source and Destination are SPIFFE IDs; the source of a caller without an identity is
	// empty, or ingress/NAME of one that is known by its address.
	Source, Destination string
	Method, Path        string
	// Port is that of a connection, which has neither method nor path; 0 of requests.
	Port uint32
	Time time.Time
	// Observed: it was let through although the policy denies it; Denied: it was not.
	Observed, Denied bool
	// Exempt: it is a health check that its mesh declares.
	Exempt bool
	// Forbidden is the deny rule that holds against it, "" for none.
	Forbidden string
}

var seen = form{"seen", `Who called %s, and how: what its agents had seen when this was
written, and not what will come. Ids in paths stand as *.
Written by signet policy init --from-traffic. Change it as you like.
`}

// FromTraffic writes rules for what was let through, by whom and how often.
func FromTraffic(m Mesh, all []Seen) Draft {
	d := &drafting{mesh: m, rules: map[proxy.Ref][]rule{}}
	w := &traffic{calls: map[calling]*segment{}, connections: map[calling]tally{}, left: map[string]int{}, strange: map[string]int{}}
	for _, s := range all {
		w.add(d.mesh, s)
	}
	for of, root := range w.calls {
		for _, t := range root.templates() {
			d.rules[of.callee] = append(d.rules[of.callee], of.rule(d.mesh, t))
		}
	}
	for of, t := range w.connections {
		r := of.rule(d.mesh, template{tally: t})
		r.methods = nil
		d.rules[of.callee] = append(d.rules[of.callee], r)
	}
	for callee, rules := range d.rules {
		d.rules[callee] = byMethods(rules)
	}
	for _, why := range slices.Sorted(maps.Keys(w.left)) {
		d.notes = append(d.notes, fmt.Sprintf("in no rule, since %s: %s", why, counted(w.left[why])))
	}
	if n := len(w.strange); n > 0 {
		d.notes = append(d.notes, "callers without an identity of the mesh get no rule, whoever they are (a load balancer's checks, neighbours that have not moved): "+few(mostOften(w.strange)))
	}
	return d.draft(seen)
}

// calling is who calls whom, by one method, or at one port.
type calling struct {
	callee         proxy.Ref
	caller, method string
	port           uint32
}

// tally is how often something was seen.
type tally struct {
	calls, observed int
	last            time.Time
}

func (t tally) and(o tally) tally {
	t.calls, t.observed = t.calls+o.calls, t.observed+o.observed
	if o.last.After(t.last) {
		t.last = o.last
	}
	return t
}

// String is a comment of a rule.
func (t tally) String() string {
	s := counted(t.calls)
	if t.observed > 0 {
		s += fmt.Sprintf(", %d of them against the policy", t.observed)
	}
	return s + ", the last at " + t.last.UTC().Format(time.RFC3339)
}

func counted(calls int) string {
	if calls == 1 {
		return "1 call"
	}
	return fmt.Sprintf("%d calls", calls)
}

// traffic sorts what was seen.
type traffic struct {
	calls       map[calling]*segment
	connections map[calling]tally
	left        map[string]int // by reason
	strange     map[string]int // calls of nobody, by what they are
}

func (w *traffic) add(m Mesh, s Seen) {
	callee, known := m.node(s.Destination)
	t := tally{calls: 1, last: s.Time}
	if s.Observed {
		t.observed = 1
	}
	of := calling{callee: callee, caller: s.Source, method: s.Method, port: s.Port}
	switch {
	case !known || m.Only != "" && callee.Mesh != m.Only || s.Exempt:
	case m.unwritten(callee) != "":
		w.left[called(callee)+": "+m.unwritten(callee)]++
	case s.Denied:
		w.left["they were denied"]++
	case s.Forbidden != "":
		w.left["rule "+s.Forbidden+" denies them"]++
	case !strings.HasPrefix(s.Source, "spiffe://") && !callee.Gateway():
		w.strange[strings.TrimSpace(s.Method+" "+s.Path)+" of "+called(callee)]++
	case s.Port != 0:
		of.method = ""
		w.connections[of] = w.connections[of].and(t)
	case !strings.HasPrefix(s.Path, "/") || strings.Contains(s.Path, `\`) || len(s.Path) >= mostPath:
		w.left["their paths are not recorded as they were"]++
	default:
		if callee.Gateway() {
			of.caller = "" // whoever comes to it
		}
		if w.calls[of] == nil {
			w.calls[of] = &segment{}
		}
		w.calls[of].add(strings.Split(s.Path[1:], "/"), t)
	}
}

// mostPath is from where on a decision has only the beginning of a path.
const mostPath = 1024

// node is whose an identity is; false if no mesh has it.
func (m Mesh) node(id string) (proxy.Ref, bool) {
	of, err := spiffeid.FromString(id)
	if err != nil || of.TrustDomain() != m.TrustDomain {
		return proxy.Ref{}, false
	}
	name, node, _ := strings.Cut(strings.TrimPrefix(of.Path(), "/"), "/")
	for _, r := range []proxy.Ref{proxy.Node(name, node), proxy.For(name, node, true)} {
		if m.Graph.Node(r) != nil {
			return r, true
		}
	}
	return proxy.Ref{}, false
}

func (c calling) rule(m Mesh, t template) rule {
	r := rule{caller: c.caller, by: "anybody", port: c.port, methods: []string{c.method}, why: []string{t.tally.String()}}
	if c.caller != "" {
		r.by = c.caller
		if of, ok := m.node(c.caller); ok {
			r.by = called(of)
		}
	}
	if p := t.path(); p != (path{}) {
		r.paths = []path{p}
	}
	return r
}

// byMethods makes one rule of those that differ in their methods alone.
func byMethods(rules []rule) []rule {
	slices.SortFunc(rules, func(a, b rule) int {
		return cmp.Or(strings.Compare(a.caller, b.caller), cmp.Compare(a.port, b.port), comparePaths(a, b), slices.Compare(a.methods, b.methods))
	})
	var list []rule
	for _, r := range rules {
		for i := range r.why {
			if len(r.methods) > 0 {
				r.why[i] = r.methods[0] + ": " + r.why[i]
			}
		}
		if n := len(list) - 1; n >= 0 && list[n].caller == r.caller && list[n].port == r.port && comparePaths(list[n], r) == 0 {
			list[n].methods = append(list[n].methods, r.methods...)
			list[n].why = append(list[n].why, r.why...)
			continue
		}
		list = append(list, r)
	}
	return list
}

func comparePaths(a, b rule) int {
	return slices.CompareFunc(a.paths, b.paths, func(a, b path) int { return strings.Compare(a.condition(), b.condition()) })
}

// mostOften lists what was counted, the most frequent first.
func mostOften(times map[string]int) []string {
	names := slices.SortedFunc(maps.Keys(times), func(a, b string) int {
		return cmp.Or(times[b]-times[a], strings.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s (%s)", name, counted(times[name]))
	}
	return names
}

// template is a path that stands for all that were merged to it.
type template struct {
	text  string
	tally tally
}

func (t template) path() path {
	switch before, rest, _ := strings.Cut(t.text, "*"); {
	case t.text == "" || t.text == "/**":
		return path{}
	case before == t.text:
		return path{PathMatch: mesh.PathMatch{Exact: t.text}}
	case rest == "*":
		return path{PathMatch: mesh.PathMatch{Prefix: before}}
	}
	return path{template: t.text}
}
