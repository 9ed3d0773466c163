package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
)

// Bounds on what one client may hold. They stand here although most are
// Envoy's defaults: a default may change, a promise may not.
const (
	requestHeadersTimeout = 10 * time.Second
	drainTimeout          = 5 * time.Second
	maxHeaderKB           = 60
	maxHeaders            = 100
	maxStreams            = 128
	streamWindow          = 64 << 10
	connectionWindow      = 1 << 20
)

// hcm is the hardened HTTP manager of both directions (D20).
func (b *builder) hcm(of manager) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		StatPrefix: of.statPrefix,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: fromADS(), RouteConfigName: of.routes,
		}},

		// One reading of a path, for routes, policy and application alike.
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,

		// Who called is the TCP peer and its certificate, not what a header says.
		UseRemoteAddress:         wrapperspb.Bool(true),
		InternalAddressConfig:    nobodyInternal(),
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_SANITIZE,
		// Envoy's own sanitizing is a list of names; others of the kind would pass.
		EarlyHeaderMutationExtensions: b.early(dropProxyHeaders()),

		// The id of a decision must be ours and random.
		GenerateRequestId:         wrapperspb.Bool(true),
		PreserveExternalRequestId: false,

		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		CommonHttpProtocolOptions:  &corev3.HttpProtocolOptions{HeadersWithUnderscoresAction: b.underscores(), MaxHeadersCount: wrapperspb.UInt32(maxHeaders)},
		HttpProtocolOptions:        http1Options(),
		Http2ProtocolOptions:       http2Options(),
		MaxRequestHeadersKb:        wrapperspb.UInt32(maxHeaderKB),
		StreamIdleTimeout:          duration(maxIdle),
		RequestHeadersTimeout:      duration(requestHeadersTimeout),
		DrainTimeout:               duration(drainTimeout),

		LocalReplyConfig: b.localReplies(),
		AccessLog:        b.requestLogs(of.way),
	}
}

// websocketUpgrade is what App Mesh upgraded on listeners of protocol http, and nothing
// else (AM-websocket). CONNECT is an upgrade to Envoy; it is not listed, here or in a
// route.
const websocketUpgrade = "websocket"

// nobodyInternal makes every caller external, so that its x-envoy-* headers and
// its request id are dropped, not obeyed. An empty list would mean Envoy's
// default, by which private and loopback addresses are internal (measured): the
// one listed is the limited broadcast address, which no peer can have.
func nobodyInternal() *hcmv3.HttpConnectionManager_InternalAddressConfig {
	return &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "255.255.255.255", PrefixLen: wrapperspb.UInt32(32)}},
	}
}

// dropFilter is the name of what takes callers' copies of a proxy's headers away.
const dropFilter = "signet.drop_proxy_headers"

func (b *builder) early(m *earlyv3.HeaderMutation) []*corev3.TypedExtensionConfig {
	return []*corev3.TypedExtensionConfig{{Name: dropFilter, TypedConfig: b.any(m)}}
}

// ingressHCM faces other workloads.
func (b *builder) ingressHCM(of manager) *hcmv3.HttpConnectionManager {
	c, m := of.callers, b.hcm(of)
	if of.protocol == mesh.ProtocolHTTP {
		m.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: websocketUpgrade}}
	}
	m.HttpFilters = b.ingressFilters(c)
	m.EarlyHeaderMutationExtensions = b.early(b.ingressHeaders(c))
	c.believe(m)
	// The application may read who called; what a caller wrote there is gone.
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	// The chain is for the agent; withoutChain takes it away.
	m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Chain: !c.foreign(), Uri: true}
	// One form of a host for policy and application (A32).
	m.StripPortMode = &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true}
	m.StripTrailingHostDot = true
	o := m.CommonHttpProtocolOptions
	o.MaxConnectionDuration = duration(b.life.connection)
	o.MaxStreamDuration = duration(b.life.stream)
	o.IdleTimeout = duration(b.life.idle)
	// Says "connection: close" before closing, so that no HTTP/1 request is lost;
	// a connection without requests ends by its idle timeout instead.
	m.Http1SafeMaxConnectionDuration = true
	return m
}

// egressHCM faces the application beside the proxy, in http_proxy form
// (D18).
func (b *builder) egressHCM(of manager) *hcmv3.HttpConnectionManager {
	m := b.hcm(of)
	m.HttpFilters = b.egressFilters()
	m.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: websocketUpgrade}} // a route to another protocol takes it back
	m.CommonHttpProtocolOptions.IdleTimeout = duration(maxIdle)
	// The address of the application is that of the proxy; it says nothing.
	m.SkipXffAppend = true
	return m
}

// http1Options ignore offers of another HTTP or of TLS, as RFC 9110 section 7.8
// allows: clients in wide use make them with every request. Other upgrades are
// refused, since what asks for one expects it.
func http1Options() *corev3.Http1ProtocolOptions {
	o := &corev3.Http1ProtocolOptions{AllowAbsoluteUrl: wrapperspb.Bool(true)}
	for _, prefix := range []string{"TLS/", "HTTP/", "h2"} {
		o.IgnoreHttp_11Upgrade = append(o.IgnoreHttp_11Upgrade, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: true,
		})
	}
	return o
}

func http2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(maxStreams),
		InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		AllowConnect:                false,
	}
}

// fromADS is where everything comes from: the stream that is already open.
func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}
