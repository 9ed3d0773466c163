package ads

import "time"

// keepRemoved keeps what left the set until the routes and listeners that may refer
// to it are gone everywhere in the view (R5).
func (m *machine) keepRemoved(t *topic, list []*Resource, st *state, cleared uint64, now time.Time) []*Resource {
	var kept []*Resource
	removals := t.removals
	t.removals = nil
	pinned := m.refused(st)
	walk(t.sent, list, func(was, is *Resource) {
		if is != nil {
			return
		}
		d, ok := removals[was.Name]
		if !ok || pinned || d.pinned {
			d = removal{gen: st.gen, since: now, pinned: pinned}
		}
		if !pinned && m.due(t, was, d, cleared, now) {
			return
		}
		if t.removals == nil {
			t.removals = make(map[string]removal)
		}
		t.removals[was.Name] = d
		kept = append(kept, was)
	})
	if len(kept) == 0 {
		return list
	}
	m.out.waiting = true
	return patch(list, kept, func(*Resource) bool { return true })
}

// due reports whether what was removed may go now; else it sees to another look.
func (m *machine) due(t *topic, r *Resource, d removal, cleared uint64, now time.Time) bool {
	if m.settled >= d.gen && cleared >= d.gen {
		if now.Before(m.draining) {
			m.until(m.draining)
			return false
		}
		return true
	}
	if limit := d.since.Add(bound); now.Before(limit) {
		m.until(limit)
		return false
	}
	m.event(Stuck, t.url, "removed although not every stream acknowledged its listeners and routes in time", r)
	return true
}

// refused reports whether this client runs older listeners or routes because the
// current ones were refused: those go on needing what left the set, for as
// long as it takes.
func (m *machine) refused(st *state) bool {
	for k, rej := range st.bad {
		if !isReferring(k.typeURL) || !k.isOf(m.client) {
			continue
		}
		t := m.find(k.typeURL)
		if t == nil || !t.has(k.name) {
			continue
		}
		if has := find(t.sent, k.name); has != nil && has.Version != rej.Version {
			return true
		}
	}
	return false
}
