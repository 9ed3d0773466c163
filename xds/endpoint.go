package xds

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/mesh"
)

// fixed is an assignment of one address.
func fixed(name string, a *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{lbEndpoint(a)}}},
	}
}

// inFixedOrder are endpoints in another order, each once.
func inFixedOrder(es []Endpoint) []Endpoint {
	es = slices.Clone(es)
	slices.SortFunc(es, func(a, b Endpoint) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port), healthyFirst(a, b))
	})
	return slices.CompactFunc(es, func(a, b Endpoint) bool { return a.Address == b.Address && a.Port == b.Port })
}

func healthyFirst(a, b Endpoint) int {
	switch {
	case a.Healthy == b.Healthy:
		return 0
	case a.Healthy:
		return -1
	}
	return 1
}

// addAssignment adds the endpoints of an EDS cluster: always, also if there are
// none, or Envoy would not finish warming the cluster (R3); and under a
// version that changes with the cluster's, for the same reason.
func (b *builder) addAssignment(name, clusterVersion string, es []Endpoint) {
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	var group endpointv3.LocalityLbEndpoints
	for _, e := range es {
		if _, err := netip.ParseAddr(e.Address); err != nil {
			// EDS resolves nothing: Envoy would refuse the whole assignment.
			b.fail(fmt.Errorf("%s: registered endpoint: %w", name, err))
			return
		}
		ep := lbEndpoint(address(e.Address, e.Port))
		ep.HealthStatus = corev3.HealthStatus_HEALTHY
		if !e.Healthy {
			ep.HealthStatus = corev3.HealthStatus_UNHEALTHY
		}
		group.LbEndpoints = append(group.LbEndpoints, ep)
	}
	if len(group.GetLbEndpoints()) > 0 {
		cla.Endpoints = []*endpointv3.LocalityLbEndpoints{&group}
	}
	if r := b.add(ads.EndpointType, name, cla); r != nil {
		b.resources[len(b.resources)-1] = r.Salted(clusterVersion)
	}
}

// byName completes a cluster of a node that is found by DNS. An address in
// place of a name needs no resolver.
func (b *builder) byName(c *clusterv3.Cluster, n *mesh.VirtualNode, p uint32) {
	c.LoadAssignment = fixed(c.GetName(), address(n.DNS.Hostname, p))
	if _, err := netip.ParseAddr(n.DNS.Hostname); err == nil {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		return
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name:        "envoy.cluster.dns",
		TypedConfig: b.part(lookup{b.family(n), n.DNS.ResponseType != mesh.DNSEndpoints}),
	}}
}

// lookup is how a name is looked up.
type lookup struct {
	family commondnsv3.DnsLookupFamily
	// one: LOADBALANCER is what was LOGICAL_DNS: one address at a time, and
	// connections to earlier answers stay; ENDPOINTS was STRICT_DNS.
	one bool
}

func (l lookup) message(b *builder) proto.Message {
	return &dnsclusterv3.DnsCluster{
		RespectDnsTtl:                true,
		DnsLookupFamily:              l.family,
		TypedDnsResolverConfig:       b.resolver(),
		DnsFailureRefreshRate:        &dnsclusterv3.DnsCluster_RefreshRate{BaseInterval: duration(dnsRetry), MaxInterval: duration(dnsRetryMost)},
		AllAddressesInSingleEndpoint: l.one,
	}
}

// A starting Envoy asks for no listener before the first answer for each name:
// by c-ares' own bounds (5 s, 4 tries, for AAAA and then for A) one resolver that
// is silent kept a service off for two minutes. Two tries, since one packet may
// be lost; what fails is asked again soon, and keeps the addresses it had.
const (
	dnsTimeout   = 1 // seconds, the unit of c-ares; the second try has twice that
	dnsTries     = 2
	dnsRetry     = 500 * time.Millisecond
	dnsRetryMost = 5 * time.Second
)

func (b *builder) resolver() *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.network.dns_resolver.cares",
		TypedConfig: b.any(&caresv3.CaresDnsResolverConfig{
			QueryTimeoutSeconds: wrapperspb.UInt64(dnsTimeout),
			QueryTries:          wrapperspb.UInt32(dnsTries),
		}),
	}
}

// family is the IP preference of the node, else of its mesh (AM-dns). Where nothing is
// said it is IPv4. Not IPv4 preferred: where an
// A query is lost and AAAA has no record, Envoy takes that for "no addresses" and
// drops those it had, while after a time-out it keeps them.
func (b *builder) family(n *mesh.VirtualNode) commondnsv3.DnsLookupFamily {
	preference := n.DNS.IPPreference // a node's own holds over its mesh's
	if spec := b.read.meshSpec(n.Mesh); preference == "" && spec != nil && spec.MeshServiceDiscovery != nil {
		preference = spec.MeshServiceDiscovery.IPPreference
	}
	switch preference {
	case "IPv4_PREFERRED":
		return commondnsv3.DnsLookupFamily_V4_PREFERRED
	case "IPv6_ONLY":
		return commondnsv3.DnsLookupFamily_V6_ONLY
	case "IPv6_PREFERRED":
		return commondnsv3.DnsLookupFamily_AUTO
	}
	return commondnsv3.DnsLookupFamily_V4_ONLY
}

func lbEndpoint(a *corev3.Address) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}}}
}
