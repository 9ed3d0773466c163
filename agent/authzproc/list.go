package authzproc

import (
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

// list is what is kept of what a filter asks for, newest first.
func (r *ring) list(f *api.DecisionFilter) []*api.Decision {
	r.mu.Lock()
	var all []*api.Decision
	for _, d := range r.byID { // they are not written once they are here
		if matches(f, d) {
			all = append(all, d)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *api.Decision) int {
		if n := b.GetTime().AsTime().Compare(a.GetTime().AsTime()); n != 0 {
			return n
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	bytes := 0
	for i, d := range all {
		if bytes += proto.Size(d); i == int(f.GetLimit()) || i == listCount || bytes > listBytes {
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

func matches(f *api.DecisionFilter, d *api.Decision) bool {
	switch f.GetResult() {
	case api.DecisionFilter_DENIED:
		if d.GetAllowed() {
			return false
		}
	case api.DecisionFilter_ALLOWED:
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
