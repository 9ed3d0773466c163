package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

const (
	hcmFilter     = "envoy.filters.network.http_connection_manager"
	tlsInspector  = "envoy.filters.listener.tls_inspector"
	proxyProtocol = "envoy.filters.listener.proxy_protocol"
	rawBuffer     = "raw_buffer" // Envoy's name of what is not TLS

	// bufferLimit is how much of one connection a proxy holds in memory.
	bufferLimit = 256 << 10
	// inspectTimeout and handshakeTimeout end connections that say nothing
	// (A28).
	inspectTimeout   = 5 * time.Second
	handshakeTimeout = 10 * time.Second
)

// ingress translates one inbound port: listener, routes, and the local cluster.
func (b *builder) ingress(l mesh.Listener) {
	name := ingressListenerName(b.shape.Bind, l.Port)
	if b.shape.EgressTakes(l.Port) || l.Port == uint32(b.shape.Capture.Ingress) {
		b.fail(errPortTaken(name))
		return
	}
	b.section(name, nil, func() {
		cluster := ingressClusterName(b.node.Ref, l)
		b.add(ads.ClusterType, cluster, b.localCluster(cluster, l))
		b.add(ads.ListenerType, name, b.ingressListener(name, l))
		if l.Protocol == mesh.ProtocolTCP {
			return
		}
		routes := ingressRouteName(l)
		b.add(ads.RouteType, routes, b.ingressRoutes(routes, cluster, l.Timeout))
	})
}

func (b *builder) ingressListener(name string, l mesh.Listener) *listenerv3.Listener {
	statPrefix := "ingress"
	if len(b.node.Listeners) > 1 { // AM-resources
		statPrefix += "." + l.Protocol + "." + port(l.Port)
	}
	return &listenerv3.Listener{
		Name:             name,
		Address:          address(b.shape.Bind, l.Port),
		BindToPort:       b.bound(),
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		// The inspector is there in every mode, so that a change of mode changes
		// filter chains only and Envoy drains only those (R10).
		ListenerFilters:               append(b.announced(l), b.inspected()...),
		ListenerFiltersTimeout:        duration(inspectTimeout),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		AccessLog:                     b.connectionLogs(answers.In, port(l.Port)),
		FilterChains:                  b.chains(statPrefix, l),
	}
}

// announced has each connection say for whom it is, before anything else. Whose word that is
// chains decide, by the connection's own peer (docs/decisions/091): of one that may leave the
// header out, anybody could name any address.
func (b *builder) announced(l mesh.Listener) []*listenerv3.ListenerFilter {
	if !l.ProxyProtocol {
		return nil
	}
	return []*listenerv3.ListenerFilter{{
		Name:       proxyProtocol,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.any(&proxyprotocolv3.ProxyProtocol{})},
	}}
}

// inspected has a connection wait for its first bytes before it has a filter chain.
func (b *builder) inspected() []*listenerv3.ListenerFilter {
	return []*listenerv3.ListenerFilter{{
		Name:       tlsInspector,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.part(inspector{})},
	}}
}

type inspector struct{}

func (inspector) message(*builder) proto.Message { return &tlsinspectorv3.TlsInspector{} }

// chains are the ways into a listener, by what its TLS mode lets in
// (D17). A managed listener takes both until it is hardened, and so does one in
// plaintext, so that its callers may change over one after the other
// (docs/decisions/067). The same filters stand behind each, so plaintext meets
// the same authorization, with no source identity.
func (b *builder) chains(statPrefix string, l mesh.Listener) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	mode, transport := b.mode(l), rawBuffer
	known, others := byCertificate(l), inPlaintext(l)
	behind := b.behind(statPrefix, l, known)
	switch {
	case l.Protocol == mesh.ProtocolTCP && mode == mesh.TLSDisabled:
		transport = "" // what looks like TLS is the application's own
	case mode != mesh.TLSDisabled || b.managed(l):
		chains = append(chains, b.tlsChain(l, behind))
	}
	if mode == mesh.TLSStrict {
		return chains
	}
	chains = append(chains, b.ingressChains(statPrefix, l, transport)...)
	if l.ProxyProtocol { // all that come are the ingress's
		return chains
	}
	if others != known {
		behind = b.behind(statPrefix, l, others)
	}
	return append(chains, chain("plaintext", transport, behind...))
}

// tlsChain is the way of callers by TLS.
func (b *builder) tlsChain(l mesh.Listener, behind []*listenerv3.Filter) *listenerv3.FilterChain {
	c := chain("tls", "tls", behind...)
	switch {
	case l.AnyClient():
	case l.ForeignClients():
		c.Filters = append([]*listenerv3.Filter{b.noSVID()}, behind...)
	default:
		c.Filters = append([]*listenerv3.Filter{b.oneSVID()}, behind...)
	}
	c.TransportSocket = b.downstream(l)
	c.TransportSocketConnectTimeout = duration(handshakeTimeout)
	if l.ProxyProtocol {
		for _, in := range l.Ingress {
			from(c, in)
		}
	}
	return c
}

// ingressChains are the ways of callers who are known by where they are.
func (b *builder) ingressChains(statPrefix string, l mesh.Listener, transport string) []*listenerv3.FilterChain {
	var chains []*listenerv3.FilterChain
	for _, in := range l.Ingress {
		c := chain("ingress-"+in.Name, transport, b.behind(statPrefix, l, atIngress(l, in))...)
		from(c, in)
		chains = append(chains, c)
	}
	return chains
}

// from has a chain take connections of an ingress, by their own peer: nothing that a caller
// sends has to do with it.
func from(c *listenerv3.FilterChain, in mesh.Ingress) {
	for _, r := range in.Ranges {
		c.FilterChainMatch.DirectSourcePrefixRanges = append(c.FilterChainMatch.DirectSourcePrefixRanges,
			&corev3.CidrRange{AddressPrefix: r.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(r.Bits()))}) //nolint:gosec // at most 128
	}
}

// behind are the filters of an inbound listener for callers of a kind.
func (b *builder) behind(statPrefix string, l mesh.Listener, c callers) []*listenerv3.Filter {
	if l.Protocol == mesh.ProtocolTCP {
		return b.inboundConnections(statPrefix, l, c)
	}
	return []*listenerv3.Filter{b.manager(answers.In, statPrefix, ingressRouteName(l), l.Protocol, c)}
}

// managed reports whether the TLS of a listener takes nothing but what its proxy has in
// any case: the node's SVID and the trust domain's bundle. Callers are of the mesh then.
func (b *builder) managed(l mesh.Listener) bool {
	return b.node.Gateway == nil && b.presented(b.node, l) == b.idOf(b.node) && (l.TLS == nil || !fromFiles(l.TLS.Certificate)) &&
		(l.TLS == nil || l.TLS.ClientTrust == "" || l.TLS.ClientTrust == b.bundle())
}

func (b *builder) mode(l mesh.Listener) string {
	switch {
	case l.TLS != nil:
		return l.TLS.Mode
	case b.read.strict(b.node.Ref):
		return mesh.TLSStrict
	}
	return mesh.TLSPermissive
}

func chain(name, transport string, filters ...*listenerv3.Filter) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             name,
		FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: transport},
		Filters:          filters,
	}
}

// appAddress is where the application listens for one port of the node.
func (b *builder) appAddress(p uint32) *corev3.Address {
	app, err := proxy.ParsePlace(b.shape.App)
	if err != nil {
		b.fail(err)
		return nil
	}
	if app.Socket != "" {
		return pipe(app.SocketFor(p), 0)
	}
	return address(b.shape.App, p)
}

func pipe(name string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: name, Mode: mode}}}
}

func address(host string, p uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: p},
	}}}
}
