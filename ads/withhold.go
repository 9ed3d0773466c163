package ads

import (
	"maps"
	"slices"
)

// Withhold returns the set with what last has in the place of what was refused, or without it
// where that has nothing better. Listeners and routes that need what is left out are as in
// last, too, and what those of last refer to is kept. Nil may stand for last.
func (s *Set) Withhold(refused func(*Resource) bool, last *Set) *Set {
	groups := maps.Clone(s.types)
	left, back := map[string]string{}, []*Resource(nil)
	for _, t := range s.Types() {
		bad := func(r *Resource) bool {
			if refused(r) {
				return true
			}
			if !isReferring(t) || len(left) == 0 || last.Get(t, r.Name) == nil {
				return false
			}
			_, needs := r.refers(left)
			return needs
		}
		if !slices.ContainsFunc(s.types[t].rs, bad) {
			continue
		}
		var list []*Resource
		for _, r := range s.types[t].rs {
			if !bad(r) {
				list = append(list, r)
				continue
			}
			if was := last.Get(t, r.Name); was != nil && !refused(was) {
				list, back = append(list, was), append(back, was)
			} else {
				left[r.Name] = r.Name
			}
		}
		groups[t] = group{rs: list, version: groupVersion(list)}
	}
	for _, t := range []string{RouteType, ClusterType, EndpointType} { // each is named by those before
		back = append(back, keep(groups, last.Type(t), back)...)
	}
	return newSet(groups)
}

// keep adds to groups those of a type that are missing and that others refer to.
func keep(groups map[string]group, had, by []*Resource) (kept []*Resource) {
	for _, r := range had {
		if find(groups[r.Type].rs, r.Name) != nil {
			continue
		}
		name := map[string]string{r.Name: ""}
		if slices.ContainsFunc(by, func(b *Resource) bool {
			_, ok := b.refers(name)
			return ok
		}) {
			kept = append(kept, r)
		}
	}
	if len(kept) > 0 {
		list := patch(groups[kept[0].Type].rs, kept, func(*Resource) bool { return true })
		groups[kept[0].Type] = group{rs: list, version: groupVersion(list)}
	}
	return kept
}

// New lists the clusters, listeners and routes of a set that not all clients of the view were
// sent so far; nothing before the first Publish.
func (v *View) New(s *Set) (list []*Resource) {
	st := v.state.Load()
	if st.set == nil {
		return nil
	}
	for _, t := range refusable {
		list = append(list, st.newIn(s, t)...)
	}
	return list
}

// FollowedBy reports whether a peer (Server.Peer) has a stream.
func (v *View) FollowedBy(peer string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.streams {
		if s.peer == peer {
			return true
		}
	}
	return false
}
