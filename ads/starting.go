package ads

import "time"

// startBound is how long changes of clusters wait for a proxy that starts:
// Envoy's own bound for a fetch that does not come is as long.
const startBound = 15 * time.Second

// starting reports whether a proxy is still bringing up the clusters of its first
// answer. Envoy asks for listeners when all of them are up; one that replaces a
// cluster before that may wait for ever for endpoints that it does not ask for
// (seen with 1.40.0: a cluster that goes from DNS to EDS while others warm). So
// a change of clusters waits for the listeners' subscription, bounded. A proxy
// that reconnects subscribes to both at once and is not held.
func (m *machine) starting(t *topic, st *state, now time.Time) bool {
	if m.mode != Proxy || t.url != ClusterType || len(t.sent) == 0 {
		return false
	}
	if m.find(ListenerType) != nil || len(st.set.Type(ListenerType)) == 0 {
		return false
	}
	if m.startSince.IsZero() {
		m.startSince = now
	}
	due := m.startSince.Add(startBound)
	if !now.Before(due) {
		return false
	}
	m.until(due)
	return true
}
