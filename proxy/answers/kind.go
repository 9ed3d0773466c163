package answers

import (
	"regexp"
	"slices"
	"strings"

	"signet.example/proxy"
)

// Kind is one thing that can be behind an answer of a proxy's own.
type Kind struct {
	// Name is the kind's own, and stays.
	Name string
	// Gets is what the caller gets: a status, or what becomes of its connection.
	Gets string
	// Cause is one sentence for the operator, without the period.
	Cause string
	// Cure is what to do, and by which command. {from}, {to} and {host} stand for the names of
	// the virtual nodes and of the host that was called.
	Cure string
	// Class is what Envoy tells its caller of a denial; "" where it tells nothing.
	Class proxy.Class

	signs []sign // of any of which it is known
}

// sign is by what a kind is known: all that is there must fit.
type sign struct {
	way     Way
	details []string // of the line, or their beginnings, where these end in *
	flag    string   // among the line's flags
	closed  string   // beginning of the line's Closed
	caller  []string // parts of CallerTLS
	callee  []string // parts of CalleeTLS
	routed  bool     // its host has routes
	// unexplained: the line has no CalleeTLS.
	unexplained bool
	method      string
	status      int

	// Of a decision.
	cause, rule string
}

// Of is the kind of a line: the first of which a sign fits.
func Of(l Line) Kind {
	return first(func(s sign) bool { return s.cause == "" && s.rule == "" && s.fits(l) })
}

// OfDecision is the kind of a decision of authz, by its cause and by the rule that decided,
// where that is one of Signet's own.
func OfDecision(cause, rule string) Kind {
	return first(func(s sign) bool { return s.rule != "" && is(s.rule, rule) || s.cause != "" && s.cause == cause })
}

func first(fits func(sign) bool) Kind {
	for _, k := range kinds {
		if slices.ContainsFunc(k.signs, fits) {
			return k
		}
	}
	return other
}

// All are the kinds, in the order in which they are looked at.
func All() []Kind { return append(slices.Clone(kinds), other) }

// Denials are Envoy's details of the answers that are denials of a class, each once and sorted, or
// their beginnings, where these end in *.
func Denials(c proxy.Class) (details []string) {
	for _, k := range kinds {
		if k.Class != c {
			continue
		}
		for _, s := range k.signs {
			details = append(details, s.details...)
		}
	}
	slices.Sort(details)
	return slices.Compact(details)
}

// Named is the kind of a name.
func Named(name string) (Kind, bool) {
	for _, k := range All() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

func (s sign) fits(l Line) bool {
	return (s.way == "" || s.way == l.Way) &&
		(s.method == "" || s.method == l.Method && (s.method != tcp || l.Status == 0)) && // a caller can have this for a method of HTTP
		(s.status == 0 || s.status == l.Status) &&
		(!s.unexplained || l.CalleeTLS == "") &&
		(!s.routed || l.Service != "" && l.Service != "-") &&
		(s.details == nil || slices.ContainsFunc(s.details, func(d string) bool { return is(d, l.Details) })) &&
		(s.flag == "" || slices.Contains(strings.Split(l.Flags, ","), s.flag)) &&
		strings.HasPrefix(l.Closed, s.closed) &&
		(s.caller == nil || hasOne(l.CallerTLS, s.caller)) &&
		(s.callee == nil || hasOne(l.CalleeTLS, s.callee))
}

// is reports whether a text is the one that is wanted, or begins with it where it ends in *.
func is(want, text string) bool {
	if begin, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(text, begin)
	}
	return want == text
}

func hasOne(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
}

// Names are what a cure is about.
type Names struct{ From, To, Host string }

// plainName is what may stand in a command that an operator pastes: callers and hosts choose
// what these are called.
var plainName = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._:/-]{0,254}$`)

// CureFor is the cure with names in it. One that is not known, or that a shell could read as
// more than a name, is left as a word in capitals.
func (k Kind) CureFor(n Names) string {
	pairs := []string{}
	if !plainName.MatchString(n.From) { // a caller without an identity has no name to ask by: all callers are listed
		pairs = append(pairs, "signet decisions --denied --from {from} ", "signet decisions --denied ")
	}
	for _, p := range []struct{ place, name, word string }{
		{"{from}", n.From, "MESH/CALLER"}, {"{to}", n.To, "MESH/CALLEE"}, {"{host}", n.Host, "HOST"},
	} {
		if !plainName.MatchString(p.name) {
			p.name = p.word
		}
		pairs = append(pairs, p.place, p.name)
	}
	return strings.NewReplacer(pairs...).Replace(k.Cure)
}
