package ads

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
)

// gate keeps listeners and routes back until the clusters they may name are
// usable: Envoy acknowledges clusters once none of them is warming (XDS.md R4).
type gate struct {
	since  time.Time // something has been waiting since; zero: nothing is
	passed bool      // the bound passed for the present clusters and endpoints

	// memo of the last time that nothing was in the way
	clusters, acked, endpoints []*Resource
	subs                       uint64
	clear                      bool
}

// open says whether a change of t may be sent now.
func (m *machine) open(t *topic, st *state, now time.Time) bool {
	why := m.blocked(st)
	if why == "" {
		m.gate.passed = false
		return true
	}
	if m.gate.passed {
		return true
	}
	if m.gate.since.IsZero() {
		m.gate.since = now
	}
	if due := m.gate.since.Add(bound); now.Before(due) {
		m.until(due)
		return false
	}
	m.gate.passed = true
	m.event(Stuck, t.url, nil, "sent although "+why)
	return true
}

// blocked says what listeners and routes have to wait for, or "". A client
// that asked for no clusters has none to wait for.
func (m *machine) blocked(st *state) string {
	c, e := m.find(ClusterType), m.find(EndpointType)
	switch {
	case c == nil:
		return ""
	case len(c.flight) > 0:
		return "clusters are not acknowledged"
	case e != nil && len(e.flight) > 0:
		return "endpoints are not acknowledged"
	}
	now := gate{clusters: c.filter(st.set.Type(ClusterType)), acked: c.acked, endpoints: st.set.Type(EndpointType), clear: true}
	if e != nil {
		now.subs = e.subs
	}
	if g := &m.gate; g.clear && same(g.clusters, now.clusters) && same(g.acked, now.acked) && same(g.endpoints, now.endpoints) && g.subs == now.subs {
		return ""
	}
	why := missing(now.clusters, now.acked, st, e)
	if why == "" {
		now.since, now.passed = m.gate.since, m.gate.passed
		m.gate = now
	}
	return why
}

// missing names the first cluster that the client has no version of, or whose
// endpoints it has not asked for.
func missing(clusters, acked []*Resource, st *state, e *topic) (why string) {
	walk(acked, clusters, func(has, is *Resource) {
		switch {
		case why != "" || is == nil:
		case has == nil:
			why = fmt.Sprintf("cluster %q is not accepted", is.Name)
		case has.Version == is.Version:
			name := is.endpoints()
			if name != "" && st.set.Get(EndpointType, name) != nil && (e == nil || !e.has(name)) {
				why = fmt.Sprintf("endpoints %q of cluster %q are not subscribed to", name, is.Name)
			}
		}
	})
	return why
}

// endpoints returns the name of the assignment that a Cluster of type EDS
// takes its endpoints from, or "". It is read from the body once.
func (r *Resource) endpoints() string {
	if p := r.refs.Load(); p != nil {
		return *p
	}
	var c clusterv3.Cluster
	name := ""
	if proto.Unmarshal(r.Body, &c) == nil && c.GetType() == clusterv3.Cluster_EDS {
		if name = c.GetEdsClusterConfig().GetServiceName(); name == "" {
			name = c.GetName()
		}
	}
	r.refs.Store(&name)
	return name
}
