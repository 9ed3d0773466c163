package authzproc

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/internal/decode"
)

// Limits of one list.
const (
	listCount = 500
	listBytes = 1 << 20
)

// list is what is kept of what a filter asks for: of each destination in turn, and there of each
// of its callers, as they have their shares of the ring.
func (r *ring) list(f *api.DecisionFilter) []*api.Decision {
	r.mu.Lock()
	var all []*api.Decision
	for _, d := range r.byID { // they are not written once they are here
		if f.Takes(d) {
			all = append(all, d)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *api.Decision) int {
		return cmp.Or(api.NewestFirst(a, b), strings.Compare(a.GetId(), b.GetId()))
	})
	all = api.InTurns(all, len(all), func(d *api.Decision) string { return d.GetSource() + "\n" + d.GetDestination() })
	return bounded(all, f)
}

// bounded is as much of a list as is asked for, of each destination in turn, and as fits into
// one answer.
func bounded(all []*api.Decision, f *api.DecisionFilter) []*api.Decision {
	all = api.InTurns(all, min(int(f.GetLimit()), listCount), (*api.Decision).GetDestination)
	bytes := 0
	for i, d := range all {
		if bytes += proto.Size(d); bytes > listBytes {
			all = all[:i]
			break
		}
	}
	return decodable(all)
}

// decodable is as much of a list, its beginning, as a server decodes: one with many small rules it
// would refuse, and with it the session.
func decodable(list []*api.Decision) []*api.Decision {
	for len(list) > 0 {
		m := &api.SessionUp{Message: &api.SessionUp_Decisions{Decisions: &api.DecisionsAnswer{Decisions: list}}}
		b, err := proto.Marshal(m)
		if err == nil {
			_, err = decode.Weigh(b, m)
		}
		if err == nil {
			break
		}
		list = list[:len(list)/2]
	}
	return list
}
