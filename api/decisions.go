package api

import (
	"slices"
	"strings"
)

// Takes reports whether a decision is one of those that the filter asks for, however many.
func (f *DecisionFilter) Takes(d *Decision) bool {
	switch f.GetResult() {
	case DecisionFilter_DENIED:
		if d.GetAllowed() {
			return false
		}
	case DecisionFilter_ALLOWED:
		if !d.GetAllowed() {
			return false
		}
	}
	at := d.GetTime().AsTime()
	return isOf(f.GetSource(), d.GetSource()) && isOf(f.GetDestination(), d.GetDestination()) &&
		(f.GetSince() == nil || !at.Before(f.GetSince().AsTime())) && (f.GetUntil() == nil || !at.After(f.GetUntil().AsTime()))
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
