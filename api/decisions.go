package api

import (
	"net"
	"slices"
	"strings"
)

// Takes reports whether a decision is one of those that the filter asks for, however many.
func (f *DecisionFilter) Takes(d *Decision) bool {
	return f.takesResult(d) && f.takesCall(d) && f.takesTime(d)
}

func (f *DecisionFilter) takesResult(d *Decision) bool {
	switch f.GetResult() {
	case DecisionFilter_DENIED:
		return !d.GetAllowed() && !d.NotCarried()
	case DecisionFilter_ALLOWED:
		return d.GetAllowed()
	case DecisionFilter_ANSWERED: // agents of the release before name no kind
		return !d.GetAllowed() && d.GetKind() != ""
	}
	return true
}

// takesCall: of who has no identity by the address, a gateway's callers among them, and of what led nowhere by the host.
func (f *DecisionFilter) takesCall(d *Decision) bool {
	address, _, _ := net.SplitHostPort(d.GetPeer())
	host, _, _ := strings.Cut(d.GetHost(), ":")
	return (isOf(f.GetSource(), d.GetSource()) || address != "" && f.GetSource() == address) &&
		(isOf(f.GetDestination(), d.GetDestination()) || f.GetDestination() == host || f.GetDestination() == d.GetHost())
}

// takesTime: what is told together is asked for by any part of its time.
func (f *DecisionFilter) takesTime(d *Decision) bool {
	first, last := d.GetTime().AsTime(), d.GetTime().AsTime()
	if d.GetCount() > 0 {
		first, last = d.GetFirst().AsTime(), d.GetLast().AsTime()
	}
	return (f.GetSince() == nil || !last.Before(f.GetSince().AsTime())) && (f.GetUntil() == nil || !first.After(f.GetUntil().AsTime()))
}

// NotCarried reports whether it is no decision: a proxy could not carry a call, or cut it off.
func (d *Decision) NotCarried() bool {
	return !d.GetAllowed() && d.GetCause() == Cause_CAUSE_UNSPECIFIED && d.GetKind() != ""
}

// isOf reports whether an identity is the one that is asked for: whole, or by the end of its path.
func isOf(asked, id string) bool {
	return asked == "" || asked == id || strings.HasSuffix(id, "/"+asked)
}

// NewestFirst orders decisions.
func NewestFirst(a, b *Decision) int { return b.GetTime().AsTime().Compare(a.GetTime().AsTime()) }

// InTurns is up to most of a list: the first one of each to whom they belong, then the
// second of each, and so on, the newest of each turn first. So nobody has so many that there is
// no room for what others have.
func InTurns(list []*Decision, most int, whose func(*Decision) string) (taken []*Decision) {
	at, turns := map[string]int{}, [][]*Decision(nil)
	for _, d := range list {
		n := at[whose(d)]
		at[whose(d)]++
		if n == len(turns) {
			turns = append(turns, nil)
		}
		turns[n] = append(turns[n], d)
	}
	for _, turn := range turns {
		if len(taken) >= most {
			break
		}
		slices.SortStableFunc(turn, NewestFirst)
		taken = append(taken, turn...)
	}
	return taken[:min(len(taken), most)]
}
