package xds

import (
	"maps"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// What is redirected to the way out: the kernel has the destination that the application
// meant, and by that a connection has its filter chain, as App Mesh had it. Who connects there
// without a redirection has the listener itself as destination, and meets the chain that is for
// http_proxy, which leads to declared backends alone: what goes on to a destination would go
// round without end (docs/decisions/099).

const (
	originalDestination = "envoy.filters.listener.original_dst"
	closeFilter         = "envoy.filters.network.direct_response"

	// mostPassing bounds the connections to what is no backend. Where the proxy's own user
	// is redirected by mistake, that is where they stop to go round.
	mostPassing = 4096

	// closedChain begins the name of a chain that leads nowhere, and notLetOut fits the
	// connections of such chains and of none.
	closedChain = "closed-"
	notLetOut   = "response.code_details == 'filter_chain_not_found' || xds.filter_chain_name.startsWith('" + closedChain + "')"
)

// capture has the listener of the way out take what is redirected to it. routes are those of
// http_proxy, of these hosts.
func (b *builder) capture(l *listenerv3.Listener, routes string, hosts []encodedHost, out []outward) {
	l.ListenerFilters = append([]*listenerv3.ListenerFilter{b.redirected()}, l.GetListenerFilters()...)
	if b.shape.Answers {
		fields := connectionFields(localPort)
		fields["closed"] = answers.NotLetOut
		l.AccessLog = append(l.AccessLog, b.answerLog(b.celFilter(notLetOut), answers.Out, fields))
	}
	own := []*corev3.CidrRange{oneAddress(b.shape.Egress.Addr().String(), 32)}
	if b.shape.Capture.IPv6 { // where the kernel redirects what is made by IPv6
		own = append(own, oneAddress("::1", 128))
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address("::1", uint32(b.shape.Egress.Port()))}}
	}
	l.FilterChains[0].FilterChainMatch = &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(uint32(b.shape.Egress.Port())), PrefixRanges: own}

	all, passing, ports := b.passesAll(), b.passing(), b.portsOfRequests()
	if all {
		l.DefaultFilterChain = b.passedOn("passed", passing)
	}
	if all && len(ports) > 0 { // else nothing of this view asks for them, and what is waited for stays away
		routes = b.passingRoutes(routes, passing, hosts)
	}
	for _, p := range ports {
		c := chain("http-"+port(p), rawBuffer, b.onlyTheApplication(), b.egressManager(routes))
		c.FilterChainMatch.DestinationPort = wrapperspb.UInt32(p)
		l.FilterChains = append(l.FilterChains, c)
	}
	l.FilterChains = append(l.FilterChains, b.capturedConnections(out, ports)...)
	if !all {
		c := b.passedOn("platform", passing)
		c.FilterChainMatch = &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(443), ServerNames: []string{"*.amazonaws.com"}, TransportProtocol: "tls"}
		l.FilterChains = append(l.FilterChains, c)
	}
}

// portsOfRequests are the ports of the backends that are called by HTTP, each once.
func (b *builder) portsOfRequests() []uint32 {
	var ports []uint32
	for _, s := range b.plainFirst() {
		ports = append(ports, portsOf(s)...)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// capturedConnections are the chains of what is spoken to by tcp. Bytes do not carry the name of
// their service, so the port decides: a port that several services have is closed, and so is one whose
// service has no targets now. Otherwise connections would reach another service, or go on to
// their destination in plaintext. A port that requests have, too, belongs to these.
func (b *builder) capturedConnections(out []outward, requests []uint32) []*listenerv3.FilterChain {
	services := b.servicesOfConnections()
	var chains []*listenerv3.FilterChain
	for _, p := range slices.Sorted(maps.Keys(services)) {
		if slices.Contains(requests, p) {
			continue
		}
		c := chain(closedChain+port(p), "", b.closed())
		i := slices.IndexFunc(out, func(o outward) bool { return o.port == p })
		if services[p] == 1 && i >= 0 {
			c = chain("tcp-"+port(p), "", b.onlyTheApplication(), b.outwardConnection(out[i]))
		}
		c.FilterChainMatch.DestinationPort = wrapperspb.UInt32(p)
		chains = append(chains, c)
	}
	return chains
}

// servicesOfConnections counts the backends by their ports of tcp, those without targets, too.
func (b *builder) servicesOfConnections() map[uint32]int {
	services := map[uint32]int{}
	for _, s := range b.plainFirst() {
		for _, p := range tcpPortsOf(s) {
			services[p]++
		}
	}
	return services
}

// passesAll reports whether the mesh lets its nodes call what is not declared.
func (b *builder) passesAll() bool {
	m := b.read.meshSpec(b.node.Mesh)
	return m != nil && m.EgressFilter != nil && m.EgressFilter.Type == mesh.EgressAllowAll
}

// passing adds the cluster of what goes on to its destination, and returns its name, which is
// App Mesh's: of all that is not declared, or of AWS's own services, which are never
// closed.
func (b *builder) passing() string {
	name := proxy.EgressClusterPrefix + b.node.Mesh + "_amazonaws"
	if b.passesAll() {
		name = proxy.EgressClusterPrefix + b.node.Mesh + "_mesh-allow-all"
	}
	breakers := unlimited()
	breakers.GetThresholds()[0].MaxConnections = wrapperspb.UInt32(mostPassing)
	b.add(ads.ClusterType, name, &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:                      clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:                duration(connectTimeout),
		CircuitBreakers:               breakers,
		TypedExtensionProtocolOptions: b.options(asReceived{}),
	})
	return name
}

// asReceived are the options of a cluster to which requests go on in the version of HTTP in which
// they came.
type asReceived struct{}

func (asReceived) message(*builder) proto.Message {
	return &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: upstreamHTTP2(),
		}},
	}
}

// passedOn carries bytes to the destination that they had. Who calls is asked as everywhere: the
// proxy's user may be let through where others are not. An idle connection ends as those to
// backends do: one whose other end went away silently would have a place of mostPassing forever.
func (b *builder) passedOn(name, cluster string) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{
		b.onlyTheApplication(),
		b.connection("egress", []weighted{{cluster, 1}}, mesh.DefaultTCPIdle, 0, b.declaredLogs()),
	}}
}

// passingRoutes adds the routes of requests on ports of backends, by which other hosts are
// called where they were meant to be.
func (b *builder) passingRoutes(routes, cluster string, hosts []encodedHost) string {
	name := routes + "_mesh-allow-all"
	any := b.encodedHosts([]*routev3.VirtualHost{{
		Name: "mesh-allow-all", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}, Timeout: duration(0),
			}},
		}},
	}})
	b.addEncoded(ads.RouteType, name, routeConfiguration(name, append(slices.Clip(hosts), any...)))
	return name
}

// bound is nil for a listener that listens at its address. Where connections are redirected the
// application has that, and the listener is what it is for captureIngress.
func (b *builder) bound() *wrapperspb.BoolValue {
	if b.shape.Capture.Ingress == 0 {
		return nil
	}
	return wrapperspb.Bool(false)
}

// captureIngress adds the listener to which connections for the application's ports are
// redirected. It hands each to the listener of the destination that it had, with its chains,
// authorization and logs; what has none is closed: another port's, and whoever connects here
// without a redirection. The kernel redirects to the first address of the interface by which a
// connection came, so that it listens on each.
func (b *builder) captureIngress() {
	p := uint32(b.shape.Capture.Ingress)
	l := &listenerv3.Listener{
		Name:                          proxy.CapturePrefix + "0.0.0.0_" + port(p),
		Address:                       address("0.0.0.0", p),
		TrafficDirection:              corev3.TrafficDirection_INBOUND,
		UseOriginalDst:                wrapperspb.Bool(true),
		ListenerFilters:               []*listenerv3.ListenerFilter{b.redirected()},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		FilterChains:                  []*listenerv3.FilterChain{{Name: "undeclared", Filters: []*listenerv3.Filter{b.closed()}}},
	}
	if b.shape.Capture.IPv6 {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address("::", p)}}
	}
	if b.shape.Answers {
		fields := connectionFields(localPort)
		fields["closed"] = answers.UndeclaredPort
		l.AccessLog = []*accesslogv3.AccessLog{b.answerLog(nil, answers.In, fields)}
	}
	b.add(ads.ListenerType, l.GetName(), l)
}

// redirected gives a connection the destination that it had before it was redirected.
func (b *builder) redirected() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       originalDestination,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.any(&originaldstv3.OriginalDst{})},
	}
}

// closed ends a connection as soon as it is there.
func (b *builder) closed() *listenerv3.Filter {
	return &listenerv3.Filter{Name: closeFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(&directv3.Config{})}}
}

func oneAddress(a string, bits uint32) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: a, PrefixLen: wrapperspb.UInt32(bits)}
}
