package authz

import (
	"sync"

	"signet.example/policy"
)

// Bounds of the series by rule: what callers and policies bring about must not fill a
// monitoring system.
const (
	mostDestinations = 1000 // more than a host has proxies
	mostSeries       = 40   // of one destination, beside those that have "other" in them: 60 in all
	mostOfSource     = 8    // of one caller there
)

// other stands for what has no series of its own.
const other = "other"

// series is one of a destination's.
type series struct{ result, rule, source string }

// room is what a destination has.
type room struct {
	series map[series]bool
	of     map[string]int // series by caller
	// revisions are the two policy revisions that were seen last: while routes change from one to
	// the other, calls are judged by both.
	revisions [2]string
}

// rooms decide which decisions have series of their own. Each destination has its own room, so that none
// takes another's, and so has each caller in it. It is safe for any number of goroutines.
type rooms struct {
	mu sync.Mutex
	of map[string]*room // guarded by mu, and so is each
}

// place returns under which labels a decision is counted, and whether what is counted of its
// destination begins anew: where a new policy revision finds no room.
func (r *rooms) place(of Record, result string) (s series, destination string, anew bool) {
	s = series{result, ruleOf(of.Rules), of.Source}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]*room{}
	}
	at := r.of[of.Destination]
	if at == nil {
		if len(r.of) >= mostDestinations {
			return series{result, other, other}, other, false
		}
		at = &room{series: map[series]bool{}, of: map[string]int{}}
		r.of[of.Destination] = at
	}
	known := at.revisions[0] == of.PolicyRevision || at.revisions[1] == of.PolicyRevision
	if anew = !known && len(at.series) >= mostSeries; anew {
		clear(at.series)
		clear(at.of)
	}
	if !known {
		at.revisions[0], at.revisions[1] = at.revisions[1], of.PolicyRevision
	}
	switch {
	case at.series[s]:
	case len(at.series) >= mostSeries:
		s.rule, s.source = other, other
	case at.of[s.source] >= mostOfSource:
		s.rule = other
	default:
		at.series[s] = true
		at.of[s.source]++
	}
	return s, of.Destination, anew
}

// ruleOf names the first of the rules that decided, "" where none did.
func ruleOf(rules []policy.RuleRef) string {
	if len(rules) == 0 {
		return ""
	}
	return rules[0].Name
}
