package ads

import (
	"fmt"
	"maps"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// gate keeps listeners and routes back until the clusters they may name are
// usable: Envoy acknowledges clusters once none of them is warming (R4).
type gate struct {
	since  time.Time // something has been waiting since; zero: nothing is
	passed bool      // the bound passed for the present clusters and endpoints

	last clearing // the last time that nothing was in the way
}

// clearing is what the absence of unready clusters was concluded from.
type clearing struct {
	clusters, acked, endpoints, located []*Resource
	subs                                uint64
}

func (a clearing) equal(b clearing) bool {
	return a.subs == b.subs && same(a.clusters, b.clusters) && same(a.acked, b.acked) &&
		same(a.endpoints, b.endpoints) && same(a.located, b.located)
}

// usable returns those of the changed listeners or routes that may be sent now.
// The others name a cluster that the client cannot use yet.
func (m *machine) usable(t *topic, changed []*Resource, st *state, now time.Time) []*Resource {
	waits := m.unready(st)
	if len(waits) == 0 {
		m.gate.passed = false
	}
	if len(waits) == 0 || m.gate.passed {
		return changed
	}
	if t.url == ListenerType {
		// A listener uses the clusters of its routes.
		for _, r := range st.set.Type(RouteType) {
			if cluster, ok := r.refers(waits); ok {
				waits[r.Name] = waits[cluster]
			}
		}
	}
	var ready []*Resource
	why := ""
	for _, r := range changed {
		if name, ok := r.refers(waits); ok {
			why = waits[name]
		} else {
			ready = append(ready, r)
		}
	}
	if len(ready) == len(changed) {
		return changed
	}
	if m.gate.since.IsZero() {
		m.gate.since = now
	}
	if due := m.gate.since.Add(bound); now.Before(due) {
		m.until(due)
		return ready
	}
	m.gate.passed = true
	m.event(Stuck, t.url, "sent although "+why)
	return changed
}

// clustersKey is the metadata of a route that takes its cluster's name from the request
// (cluster_header): whoever makes such a route lists there, as strings, which may be meant.
const clustersKey = "signet.clusters"

// refers finds a name of those given in r. A name is a string, and protobuf writes
// that as its length and its bytes, in an Any too. Routes that take a cluster's name from
// the request refer to every one, unless they list which.
func (r *Resource) refers(names map[string]string) (name string, ok bool) {
	if name, ok = r.names(names); ok || r.Type != RouteType || len(names) == 0 || !r.toAny() {
		return name, ok
	}
	return slices.Min(slices.Collect(maps.Keys(names))), true
}

func (r *Resource) names(names map[string]string) (name string, ok bool) {
	for i := range r.Body {
		s, n := protowire.ConsumeBytes(r.Body[i:])
		if n < 0 || len(s) > maxName {
			continue
		}
		if _, ok := names[string(s)]; ok {
			return string(s), true
		}
	}
	return "", false
}

// toAny reports whether a request may name any cluster to a route. It is read from the body
// once.
func (r *Resource) toAny() bool {
	if p := r.any.Load(); p != nil {
		return *p
	}
	var rc routev3.RouteConfiguration
	found := false
	if proto.Unmarshal(r.Body, &rc) == nil {
		for _, vh := range rc.GetVirtualHosts() {
			found = found || slices.ContainsFunc(vh.GetRoutes(), func(route *routev3.Route) bool {
				_, listed := route.GetMetadata().GetFilterMetadata()[clustersKey]
				return !listed && fromHeader(route.GetRoute())
			})
		}
	}
	r.any.Store(&found)
	return found
}

func fromHeader(a *routev3.RouteAction) bool {
	return a.GetClusterHeader() != "" ||
		slices.ContainsFunc(a.GetWeightedClusters().GetClusters(), func(c *routev3.WeightedCluster_ClusterWeight) bool { return c.GetClusterHeader() != "" }) ||
		slices.ContainsFunc(a.GetRequestMirrorPolicies(), func(p *routev3.RouteAction_RequestMirrorPolicy) bool { return p.GetClusterHeader() != "" })
}

// unready holds the clusters that listeners and routes have to wait for, and why.
// A client that asked for no clusters has none to wait for.
func (m *machine) unready(st *state) map[string]string {
	c, e := m.find(ClusterType), m.find(EndpointType)
	if c == nil {
		return nil
	}
	now := clearing{clusters: c.filter(st.set.Type(ClusterType)), acked: c.acked, endpoints: st.set.Type(EndpointType)}
	quiet := len(c.flight) == 0
	if e != nil {
		now.located, now.subs, quiet = e.acked, e.subs, quiet && len(e.flight) == 0
	}
	if quiet && now.equal(m.gate.last) {
		return nil
	}
	waits := make(map[string]string)
	for _, r := range now.clusters {
		if why := lacks(r, st, c, e); why != "" {
			waits[r.Name] = fmt.Sprintf("cluster %q is not ready: %s", r.Name, why)
		}
	}
	if len(waits) == 0 && quiet {
		m.gate.last = now
	}
	return waits
}

// lacks reports what a client of c and e still needs to use a cluster, or "".
func lacks(cluster *Resource, st *state, c, e *topic) string {
	if c.awaits(cluster) {
		return "it is not acknowledged"
	}
	name := cluster.endpoints()
	if name == "" {
		return ""
	}
	switch r := st.set.Get(EndpointType, name); {
	case r == nil:
		return ""
	case e == nil || !e.has(name):
		return "its endpoints are not subscribed to"
	case e.awaits(r):
		return "its endpoints are not acknowledged"
	}
	return ""
}

// awaits reports whether the client has yet to accept what it was sent of r, or was
// sent nothing of it.
func (t *topic) awaits(r *Resource) bool {
	return find(t.acked, r.Name) == nil ||
		slices.ContainsFunc(t.flight, func(f response) bool { return find(f.changed, r.Name) != nil })
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
