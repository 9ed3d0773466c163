package xds

import (
	"math"
	"reflect"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
)

const connectTimeout = time.Second // AM-clusters

// egressCluster is what one cluster was made from: two services that reach the
// same listener share its cluster if they call it in the same way.
type egressCluster struct {
	node   *mesh.VirtualNode
	port   uint32
	policy *mesh.ClientTLS
}

// egressCluster adds the cluster of a target's listener unless it is there, and
// returns its name. App Mesh's name holds one way of calling a listener; a
// service with another client policy gets a cluster that also names the service.
func (b *builder) egressCluster(s backend, target *mesh.VirtualNode, l mesh.Listener) string {
	name := egressClusterName(target.Ref, l)
	want := egressCluster{node: target, port: l.Port, policy: s.tls.On(l.Port)}
	if have, ok := b.clusters[name]; ok && !reflect.DeepEqual(have, want) {
		name += "_via_" + s.service.Name
	}
	if _, ok := b.clusters[name]; ok {
		return name
	}
	b.clusters[name] = want
	b.section(name, want, func() { b.addEgressCluster(name, want, l) })
	return name
}

// addEgressCluster finds the endpoints from registration first, else as the
// spec declares (D19).
func (b *builder) addEgressCluster(name string, e egressCluster, l mesh.Listener) {
	endpoints := b.read.endpoints(e.node.Ref, l.Port)
	c := &clusterv3.Cluster{
		Name:            name,
		ConnectTimeout:  duration(connectTimeout),
		CircuitBreakers: b.clientPool(l),
		// An endpoint that was removed is gone, even if it still answers probes.
		IgnoreHealthOnHostRemoval: true,
		HealthChecks:              callersChecks(e.node, l),
		OutlierDetection:          outliers(l.Outliers),
	}
	secured := b.secured(e, l, endpoints)
	if secured {
		c.TransportSocket = b.upstream(e.node, l, e.policy)
	}
	c.TypedExtensionProtocolOptions = b.speaking(speaking{l.Protocol, true, b.life, b.strangers(e, endpoints, secured)})
	if len(endpoints) == 0 && b.resolved(e.node) {
		b.byName(c, e.node, l.Port)
		b.add(ads.ClusterType, name, c)
		return
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: fromADS()}
	if r := b.add(ads.ClusterType, name, c); r != nil {
		b.addAssignment(name, r.Version, endpoints)
	}
}

// secured decides whether a listener is called by mTLS (D17):
//
//   - a client policy enforces it, whatever the server says;
//   - a listener with tls is called as it declares: DISABLED means plaintext,
//     also to registered endpoints;
//   - a managed listener (no tls) is called by mTLS if it is registered, if it can
//     be found in no other way (Envoy may give endpoints to the cluster that a new
//     one is about to replace), or if an agent may host it: losing registrations
//     must not turn mTLS into plaintext. Before the first of a node that was called
//     without, there is none to lose (docs/decisions/106).
//
// What remains is a peer outside, found by name or in Cloud Map, without a word about
// TLS: it is called in plaintext, as App Mesh did.
func (b *builder) secured(e egressCluster, l mesh.Listener, endpoints []Endpoint) bool {
	switch {
	case e.policy != nil && e.policy.Enforce:
		return true
	case l.TLS != nil:
		return l.TLS.Mode != mesh.TLSDisabled
	case (len(endpoints) > 0 || e.node.DNS == nil) && !b.read.outside(e.node.Ref):
		return true
	}
	return b.read.managed(e.node.Ref) && !b.read.awaited(e.node.Ref)
}

// strangers reports whether a listener's answers may be of others than proxies of the mesh: its
// endpoints are not registered, and no SVID is asked of them.
func (b *builder) strangers(e egressCluster, endpoints []Endpoint, secured bool) bool {
	if secured && (e.policy == nil || !fromFiles(e.policy.Trust)) {
		return false
	}
	return b.read.outside(e.node.Ref) || len(endpoints) == 0 && b.resolved(e.node)
}

// resolved reports whether a node without registered endpoints is looked for by its name: not
// where an agent may host it and the name is that of a service with an address, which could be
// what is found.
func (b *builder) resolved(n *mesh.VirtualNode) bool {
	return n.DNS != nil && (!b.read.leadsBack(n.Ref) || !b.read.managed(n.Ref))
}

// localCluster is the application beside the proxy.
func (b *builder) localCluster(name string, l mesh.Listener) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                duration(connectTimeout),
		CircuitBreakers:               pool(l.Pool),
		LoadAssignment:                fixed(name, b.appAddress(l.Port)),
		TypedExtensionProtocolOptions: b.speaking(speaking{protocol: l.Protocol}),
	}
	addOwnChecks(c, b.node, l)
	if l.Application != nil {
		c.TransportSocket = b.toApplication(l)
	}
	return c
}

// agentCluster is one of the agent's sockets, authz.sock or wayout.sock, on whose
// connections so many calls may be under way.
func (b *builder) agentCluster(name, socket string, breakers *clusterv3.CircuitBreakers, streams uint32) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                duration(proxy.AnswerWithin),
		CircuitBreakers:               breakers,
		LoadAssignment:                fixed(name, pipe(socket, 0)),
		TypedExtensionProtocolOptions: b.options(asking{streams}),
	}
}

// oneConnection lets each worker have one, for Envoy never refuses a worker its
// first: what is due beyond its streams waits in the proxy for the one before.
func oneConnection() *clusterv3.CircuitBreakers {
	c := unlimited()
	c.Thresholds[0].MaxConnections = wrapperspb.UInt32(1)
	return c
}

// unlimited is App Mesh's circuit breaker (AM-clusters).
func unlimited() *clusterv3.CircuitBreakers {
	most := func() *wrapperspb.UInt32Value { return wrapperspb.UInt32(math.MaxInt32) }
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: most(), MaxPendingRequests: most(), MaxRequests: most(), MaxRetries: most(),
	}}}
}

// pool is what a listener declares of its application; App Mesh had it here, and not at
// the clients (AM-clusters).
func pool(p mesh.Pool) *clusterv3.CircuitBreakers {
	c := unlimited()
	t := c.GetThresholds()[0]
	for _, bound := range []struct {
		to **wrapperspb.UInt32Value
		at uint32
	}{{&t.MaxConnections, p.Connections}, {&t.MaxPendingRequests, p.Pending}, {&t.MaxRequests, p.Requests}} {
		if bound.at > 0 {
			*bound.to = wrapperspb.UInt32(bound.at)
		}
	}
	return c
}

// clientPool bounds what a proxy may have under way at one target. App Mesh's clients are
// without bounds of their own (AM-clusters). A gateway has those of its listeners: App Mesh
// had them at the hop inside the gateway, for all targets together (docs/decisions/052).
//
// What Signet's own options of the target say bounds any caller, where it is less.
func (b *builder) clientPool(target mesh.Listener) *clusterv3.CircuitBreakers {
	c := b.ownPool(target)
	t, o := c.GetThresholds()[0], target.Breaker
	for _, bound := range []struct {
		to **wrapperspb.UInt32Value
		at uint32
	}{{&t.MaxConnections, o.Connections}, {&t.MaxPendingRequests, o.Pending}, {&t.MaxRequests, o.Requests}, {&t.MaxRetries, o.Retries}, {&t.MaxConnectionPools, o.Pools}} {
		if bound.at > 0 && (*bound.to == nil || (*bound.to).GetValue() > bound.at) {
			*bound.to = wrapperspb.UInt32(bound.at)
		}
	}
	if o.BudgetPercent > 0 {
		t.MaxRetries = nil // Envoy would not look at it
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetPercent: &typev3.Percent{Value: float64(o.BudgetPercent)}}
		if o.BudgetLeast > 0 {
			t.RetryBudget.MinRetryConcurrency = wrapperspb.UInt32(o.BudgetLeast)
		}
	}
	if o.HostConnections > 0 {
		c.PerHostThresholds = []*clusterv3.CircuitBreakers_Thresholds{{MaxConnections: wrapperspb.UInt32(o.HostConnections)}}
	}
	return c
}

func (b *builder) ownPool(target mesh.Listener) *clusterv3.CircuitBreakers {
	if b.node.Gateway == nil {
		return unlimited()
	}
	var all mesh.Pool // of listeners of which each has a pool, or none has
	pending, connections := true, true
	for _, l := range b.node.Listeners {
		all.Requests = sum(all.Requests, l.Pool.Connections, l.Pool.Requests)
		all.Pending = sum(all.Pending, l.Pool.Pending)
		pending = pending && l.Pool.Pending > 0
		connections = connections && l.Pool.Connections > 0
	}
	if !pending {
		all.Pending = 0
	}
	if connections && !multiplexed(target.Protocol) { // one request each; more wait for one
		all.Connections, all.Requests = all.Requests, 0
	}
	return pool(all)
}

// sum is of bounds, and no more than what means none.
func sum(bounds ...uint32) uint32 {
	var all uint64
	for _, b := range bounds {
		all += uint64(b)
	}
	return uint32(min(all, math.MaxInt32))
}

// outliers ejects an endpoint for errors in succession, as declared, and for nothing else:
// by Envoy's default its share of successes would count, too.
func outliers(o *mesh.Outliers) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:          wrapperspb.UInt32(o.Errors),
		EnforcingConsecutive_5Xx: wrapperspb.UInt32(100),
		EnforcingSuccessRate:     wrapperspb.UInt32(0),
		Interval:                 duration(o.Interval),
		BaseEjectionTime:         duration(o.Base),
		MaxEjectionPercent:       wrapperspb.UInt32(o.Percent),
	}
}
