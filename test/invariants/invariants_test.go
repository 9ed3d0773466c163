package invariants_test

import (
	"slices"
	"strings"
	"testing"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	connauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// pack packs m; it cannot fail for what the tests make.
func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// edit changes the message in a.
func edit[M proto.Message](t *testing.T, a *anypb.Any, m M, change func(M)) {
	t.Helper()
	if err := a.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	change(m)
	*a = anypb.Any{TypeUrl: a.GetTypeUrl()}
	if err := a.MarshalFrom(m); err != nil {
		t.Fatal(err)
	}
}

// manager changes the HTTP manager of a listener's first chain.
func manager(change func(*testing.T, *hcmv3.HttpConnectionManager)) func(*testing.T, proto.Message) {
	return func(t *testing.T, m proto.Message) {
		t.Helper()
		f := m.(*listenerv3.Listener).GetFilterChains()[0].GetFilters()[1]
		edit(t, f.GetTypedConfig(), new(hcmv3.HttpConnectionManager), func(h *hcmv3.HttpConnectionManager) { change(t, h) })
	}
}

func authz(change func(*authzv3.ExtAuthz)) func(*testing.T, proto.Message) {
	return manager(func(t *testing.T, h *hcmv3.HttpConnectionManager) {
		edit(t, h.GetHttpFilters()[1].GetTypedConfig(), new(authzv3.ExtAuthz), change)
	})
}

func downstream(change func(*tlsv3.DownstreamTlsContext)) func(*testing.T, proto.Message) {
	return func(t *testing.T, m proto.Message) {
		t.Helper()
		s := m.(*listenerv3.Listener).GetFilterChains()[0].GetTransportSocket()
		edit(t, s.GetTypedConfig(), new(tlsv3.DownstreamTlsContext), change)
	}
}

func validation(change func(*tlsv3.CertificateValidationContext)) func(*testing.T, proto.Message) {
	return downstream(func(c *tlsv3.DownstreamTlsContext) {
		change(c.GetCommonTlsContext().GetCombinedValidationContext().GetDefaultValidationContext())
	})
}

func perRoute(t *testing.T, m proto.Message, p proto.Message) {
	t.Helper()
	h := m.(*routev3.RouteConfiguration).GetVirtualHosts()[0]
	h.GetRoutes()[0].TypedPerFilterConfig = map[string]*anypb.Any{"envoy.filters.http.ext_authz": pack(t, p)}
}

// anyMethod changes how a route repeats requests of the methods that are not idempotent.
func anyMethod(change func(*routev3.RetryPolicy)) func(*testing.T, proto.Message) {
	return func(t *testing.T, m proto.Message) {
		t.Helper()
		h := m.(*routev3.RouteConfiguration).GetVirtualHosts()[0]
		p := proto.CloneOf(h.GetRetryPolicy())
		change(p)
		h.GetRoutes()[0].GetRoute().RetryPolicy = p
	}
}

type breakage struct {
	resource, name string // which resource of the golden case "strict" is broken
	how            func(*testing.T, proto.Message)
	want           string // part of the violation
}

const (
	inListener  = "lds_ingress_127.0.0.2_8080"
	inRoutes    = "rds_ingress_http_8080"
	outCluster  = "cds_egress_shop_stock_http_8080"
	outRoutes   = "rds_egress_http_15001"
	outListener = "lds_egress_127.0.0.2_15001"
)

var breakages = map[string]breakage{
	"failure mode": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.FailureModeAllow = true }), "failure_mode_allow"},
	"a socket for everybody": {ads.ListenerType, outListener, func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/out.sock", Mode: 0o666}}}
	}, "others than its group"},
	"skipped by runtime": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.FilterEnabled = new(corev3.RuntimeFractionalPercent) }), "can be skipped"},
	"skipped by metadata": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) {
		a.FilterEnabledMetadata = new(matcherv3.MetadataMatcher)
	}), "can be skipped"},
	"shadow":      {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.ShadowMode = true }), "can be skipped"},
	"other authz": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.GetGrpcService().GetEnvoyGrpc().ClusterName = "x" }), "does not ask"},
	"joined":      {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.EncodeRawHeaders = false }), "joined"},
	"mutations":   {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.DecoderHeaderMutationRules = nil }), "decided on"},
	"error is OK": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.StatusOnError.Code = 200 }), "status on error"},
	"no authz": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.HttpFilters = append(h.HttpFilters[:1:1], h.HttpFilters[2:]...)
	}), "no filter envoy.extensions.filters.http.ext_authz"},
	"order": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.HttpFilters[0], h.HttpFilters[1] = h.HttpFilters[1], h.HttpFilters[0]
	}), "out of order"},
	"disabled": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.HttpFilters[1].Disabled = true }), "disabled"},
	"optional": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.HttpFilters[1].IsOptional = true }), "disabled"},
	"renamed":  {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.HttpFilters[1].Name = "x" }), "no route can stamp"},
	"weaker refusal": {ads.ListenerType, inListener, manager(func(t *testing.T, h *hcmv3.HttpConnectionManager) {
		edit(t, h.GetHttpFilters()[0].GetTypedConfig(), new(rbacv3.RBAC), func(r *rbacv3.RBAC) { r.Rules.Action = rbacconfigv3.RBAC_ALLOW })
	}), "does not refuse"},
	"CONNECT": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.UpgradeConfigs = append(h.UpgradeConfigs, &hcmv3.HttpConnectionManager_UpgradeConfig{UpgradeType: "CONNECT"})
	}), `upgrade to "CONNECT"`},
	"upgrade with filters": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.UpgradeConfigs[0].Filters = h.HttpFilters[2:]
	}), "filters of its own"},
	"HTTP/2 CONNECT": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.Http2ProtocolOptions.AllowConnect = true
	}), "CONNECT"},
	"raw paths":       {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.MergeSlashes = false }), "not normalised"},
	"internal":        {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.InternalAddressConfig = nil }), "internal"},
	"proxy's headers": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.EarlyHeaderMutationExtensions = nil }), "in a proxy's name"},
	"XFCC":            {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.ForwardClientCertDetails = 0 }), "x-forwarded-client-cert"},
	"eternal": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.CommonHttpProtocolOptions.MaxStreamDuration = nil
	}), "no end"},
	"request ids":   {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.PreserveExternalRequestId = true }), "request ids"},
	"escaped slash": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.PathWithEscapedSlashesAction = 0 }), "escaped slashes"},
	"underscores": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.CommonHttpProtocolOptions.HeadersWithUnderscoresAction = corev3.HttpProtocolOptions_ALLOW
	}), "underscores"},
	"trusted XFF":    {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.XffNumTrustedHops = 1 }), "x-forwarded-for"},
	"silent clients": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) { h.StreamIdleTimeout = durationpb.New(0) }), "silent"},
	"no certificate": {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) { c.RequireClientCertificate = wrapperspb.Bool(false) }), "no client certificate"},
	"tickets":        {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) { c.SessionTicketKeysType = nil }), "resumed"},
	"TLS 1.2": {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) {
		c.CommonTlsContext.TlsParams.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_2
	}), "older than 1.3"},
	"no post-quantum": {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) {
		c.CommonTlsContext.TlsParams.EcdhCurves = nil
	}), "left to a default"},
	"post-quantum second": {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) {
		c.CommonTlsContext.TlsParams.EcdhCurves = []string{"X25519", "X25519MLKEM768"}
	}), "key exchange X25519 in place 0"},
	"no bundle":  {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) { c.CommonTlsContext.ValidationContextType = nil }), "not verified"},
	"inline key": {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) { c.CommonTlsContext.TlsCertificates = []*tlsv3.TlsCertificate{{}} }), "by SDS"},
	"anybody":    {ads.ListenerType, inListener, validation(func(v *tlsv3.CertificateValidationContext) { v.MatchTypedSubjectAltNames = nil }), "anybody"},
	"DNS name": {ads.ListenerType, inListener, validation(func(v *tlsv3.CertificateValidationContext) {
		v.MatchTypedSubjectAltNames[0].SanType = tlsv3.SubjectAltNameMatcher_DNS
	}), "not a SPIFFE ID"},
	"half a domain": {ads.ListenerType, inListener, validation(func(v *tlsv3.CertificateValidationContext) {
		v.MatchTypedSubjectAltNames[0].Matcher = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://test.example"}}
	}), "pattern"},
	"untrusted": {ads.ListenerType, inListener, validation(func(v *tlsv3.CertificateValidationContext) {
		v.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	}), "weakened"},
	"expired is fine": {ads.ListenerType, inListener, validation(func(v *tlsv3.CertificateValidationContext) { v.AllowExpiredCertificate = true }), "weakened"},
	"any number of names": {ads.ListenerType, inListener, func(_ *testing.T, m proto.Message) {
		c := m.(*listenerv3.Listener).FilterChains[0]
		c.Filters = c.Filters[1:]
	}, "one SPIFFE ID"},
	"callers without an identity where there is one": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) {
		a.IncludePeerCertificate = false
		a.GetGrpcService().InitialMetadata = []*corev3.HeaderValue{{Key: "x-signet-callers", Value: "foreign"}}
	}), "the wrong thing of who vouches for callers"},
	"authorities of a file, and identities": {ads.ListenerType, inListener, downstream(func(c *tlsv3.DownstreamTlsContext) {
		c.GetCommonTlsContext().GetCombinedValidationContext().GetValidationContextSdsSecretConfig().Name = "file-authorities:/keys/ca.pem"
	}), "or none of a file's authority"},
	"certificate not shown": {ads.ListenerType, inListener, authz(func(a *authzv3.ExtAuthz) { a.IncludePeerCertificate = false }), "not shown the caller's certificate"},
	"chain not shown": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.SetCurrentClientCertDetails.Chain = false
	}), "not shown the caller's chain"},
	"chain for everybody": {ads.ListenerType, inListener, manager(func(t *testing.T, h *hcmv3.HttpConnectionManager) {
		edit(t, h.GetHttpFilters()[2].GetTypedConfig(), new(headermutationv3.HeaderMutation), func(m *headermutationv3.HeaderMutation) { m.Mutations = nil })
	}), "chain reaches the application"},
	"TCP": {ads.ListenerType, inListener, func(t *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).FilterChains[0].Filters[1] = &listenerv3.Filter{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &tcpv3.TcpProxy{})}}
	}, "not exactly one HTTP manager"},
	"default chain": {ads.ListenerType, inListener, func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).DefaultFilterChain = &listenerv3.FilterChain{}
	}, "not exactly one HTTP manager"},
	"TCP beside HTTP": {ads.ListenerType, inListener, func(t *testing.T, m proto.Message) {
		c := m.(*listenerv3.Listener).FilterChains[0]
		c.Filters = append(c.Filters, &listenerv3.Filter{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, &tcpv3.TcpProxy{})}})
	}, "not exactly one HTTP manager"},
	"API listener": {ads.ListenerType, inListener, func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).ApiListener = &listenerv3.ApiListener{}
	}, "not checked"},
	"behind the router": {ads.ListenerType, inListener, manager(func(_ *testing.T, h *hcmv3.HttpConnectionManager) {
		h.HttpFilters = append(h.HttpFilters, h.HttpFilters[0])
	}), "out of order"},
	"unreadable": {ads.ListenerType, inListener, func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).FilterChains[0].Filters[0].GetTypedConfig().TypeUrl = "type.googleapis.com/x.Y"
	}, "cannot be read"},
	"no direction": {ads.ListenerType, "lds_egress_127.0.0.2_15001", func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).TrafficDirection = 0
	}, "no filter"},
	"a way out for everybody": {ads.ListenerType, outListener, func(_ *testing.T, m proto.Message) {
		c := m.(*listenerv3.Listener).FilterChains[0]
		c.Filters = c.Filters[1:]
	}, "does not ask who calls"},
	"a way out with the room of the ways in": {ads.ListenerType, outListener, func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).IgnoreGlobalConnLimit = false
	}, "can take all connections of the ways in"},
	"a way out on failure": {ads.ListenerType, outListener, wayOut(func(a *connauthzv3.ExtAuthz) { a.FailureModeAllow = true }), "does not ask who calls"},
	"a way out in shadow":  {ads.ListenerType, outListener, wayOut(func(a *connauthzv3.ExtAuthz) { a.ShadowMode = true }), "does not ask who calls"},
	"a way out by another": {ads.ListenerType, outListener, wayOut(func(a *connauthzv3.ExtAuthz) { a.GetGrpcService().GetEnvoyGrpc().ClusterName = "x" }), "does not ask who calls"},
	"another way out": {ads.ListenerType, outListener, func(_ *testing.T, m proto.Message) {
		m.(*listenerv3.Listener).DefaultFilterChain = &listenerv3.FilterChain{}
	}, "does not ask who calls"},
	"disabled by route": {ads.RouteType, inRoutes, func(t *testing.T, m proto.Message) {
		perRoute(t, m, &authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_Disabled{Disabled: true}})
	}, "disables"},
	"sent elsewhere by route": {ads.RouteType, inRoutes, func(t *testing.T, m proto.Message) {
		perRoute(t, m, &authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: &authzv3.CheckSettings{
			ServiceOverride: &authzv3.CheckSettings_GrpcService{GrpcService: new(corev3.GrpcService)},
		}}})
	}, "elsewhere"},
	"sent elsewhere by route, over HTTP": {ads.RouteType, inRoutes, func(t *testing.T, m proto.Message) {
		perRoute(t, m, &authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: &authzv3.CheckSettings{
			ServiceOverride: &authzv3.CheckSettings_HttpService{HttpService: new(authzv3.HttpService)},
		}}})
	}, "elsewhere"},
	"overridden by route": {ads.RouteType, inRoutes, func(t *testing.T, m proto.Message) { perRoute(t, m, &routev3.FilterConfig{Disabled: true}) }, "overrides a filter"},
	"refusal overridden":  {ads.RouteType, inRoutes, func(t *testing.T, m proto.Message) { perRoute(t, m, &rbacv3.RBACPerRoute{}) }, "ambiguous"},
	"no stamp": {ads.RouteType, inRoutes, func(_ *testing.T, m proto.Message) {
		m.(*routev3.RouteConfiguration).VirtualHosts[0].TypedPerFilterConfig = nil
	}, "no policy revision"},
	"CONNECT route": {ads.RouteType, inRoutes, func(_ *testing.T, m proto.Message) {
		m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].Match.PathSpecifier = &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}
	}, "CONNECT"},
	"CONNECT by route": {ads.RouteType, inRoutes, func(_ *testing.T, m proto.Message) {
		m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].GetRoute().UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "CONNECT"}}
	}, "CONNECT"},
	"repeated after a reset": {ads.RouteType, outRoutes, anyMethod(func(p *routev3.RetryPolicy) { p.RetryOn = "reset" }), "repeats what may have been served"},
	"repeated by status":     {ads.RouteType, outRoutes, anyMethod(func(p *routev3.RetryPolicy) { p.RetryOn += ",retriable-status-codes" }), "repeats what may have been served"},
	"repeated by any header": {ads.RouteType, outRoutes, anyMethod(func(p *routev3.RetryPolicy) { p.RetriableHeaders[0].Name = "server" }), "repeats by the header"},
	"repeated by the host": {ads.RouteType, outRoutes, func(_ *testing.T, m proto.Message) {
		m.(*routev3.RouteConfiguration).VirtualHosts[0].RetryPolicy.RetryOn = "reset"
	}, "virtual host stock.shop.internal repeats what may have been served"},
	"repeated by a header": {ads.RouteType, outRoutes, func(_ *testing.T, m proto.Message) {
		m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].RequestHeadersToAdd = []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "X-Envoy-Retry-On", Value: "reset"}}}
	}, "x-envoy-retry-on is set of requests of any method"},
	"more of them by a header": {ads.RouteType, outRoutes, func(_ *testing.T, m proto.Message) {
		m.(*routev3.RouteConfiguration).RequestHeadersToAdd = []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-envoy-max-retries", Value: "9"}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS}}
	}, "x-envoy-max-retries is set of requests of any method"},
	"a method more is idempotent": {ads.ListenerType, outListener, repeating(func(f *matchingv3.ExtensionWithMatcher) {
		methods := f.GetXdsMatcher().GetMatcherList().GetMatchers()[0].GetPredicate().GetNotMatcher().GetOrMatcher()
		methods.GetPredicate()[0].GetSinglePredicate().GetValueMatch().MatchPattern = &xdsmatcherv3.StringMatcher_Prefix{Prefix: "P"}
	}), "a filter is passed by"},
	"all methods are idempotent": {ads.ListenerType, outListener, repeating(func(f *matchingv3.ExtensionWithMatcher) { f.XdsMatcher = nil }), "x-envoy-retry-on is set of requests of any method"},
	"anybody serves": {ads.ClusterType, outCluster, func(t *testing.T, m proto.Message) {
		edit(t, m.(*clusterv3.Cluster).GetTransportSocket().GetTypedConfig(), new(tlsv3.UpstreamTlsContext), func(c *tlsv3.UpstreamTlsContext) {
			c.CommonTlsContext.GetCombinedValidationContext().DefaultValidationContext = nil
		})
	}, "anybody"},
	"client resumes": {ads.ClusterType, outCluster, func(t *testing.T, m proto.Message) {
		edit(t, m.(*clusterv3.Cluster).GetTransportSocket().GetTypedConfig(), new(tlsv3.UpstreamTlsContext), func(c *tlsv3.UpstreamTlsContext) { c.MaxSessionKeys = nil })
	}, "resumed"},
}

func repeating(change func(*matchingv3.ExtensionWithMatcher)) func(*testing.T, proto.Message) {
	return func(t *testing.T, m proto.Message) {
		t.Helper()
		edit(t, m.(*listenerv3.Listener).FilterChains[0].Filters[1].GetTypedConfig(), new(hcmv3.HttpConnectionManager), func(h *hcmv3.HttpConnectionManager) {
			edit(t, h.GetHttpFilters()[1].GetTypedConfig(), new(matchingv3.ExtensionWithMatcher), change)
		})
	}
}

func wayOut(change func(*connauthzv3.ExtAuthz)) func(*testing.T, proto.Message) {
	return func(t *testing.T, m proto.Message) {
		edit(t, m.(*listenerv3.Listener).FilterChains[0].Filters[0].GetTypedConfig(), new(connauthzv3.ExtAuthz), change)
	}
}

func TestEachBrokenInvariantIsFound(t *testing.T) {
	c := xdstest.Load(t, "../../xds/testdata/strict")
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range breakages {
		t.Run(name, func(t *testing.T) {
			r := set.Get(b.resource, b.name)
			if r == nil {
				t.Fatalf("no resource %s", b.name)
			}
			m, err := invariants.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			if v := invariants.Check([]proto.Message{m}); len(v) > 0 {
				t.Fatalf("before: %q", v)
			}
			b.how(t, m)
			if v := invariants.Check([]proto.Message{m}); !strings.Contains(strings.Join(v, "\n"), b.want) {
				t.Errorf("want %q, found %q", b.want, v)
			}
		})
	}
}

func TestTheAgentHearsToWhichPortACallerCame(t *testing.T) {
	c := xdstest.Load(t, "../../xds/testdata/tcp")
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"lds_ingress_127.0.0.2_6379": "to which port a connection came",
		"lds_ingress_127.0.0.2_8080": "to which port a request came",
	} {
		m, err := invariants.Decode(set.Get(ads.ListenerType, name))
		if err != nil {
			t.Fatal(err)
		}
		m.(*listenerv3.Listener).GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: 1}
		if v := invariants.Check([]proto.Message{m}); !strings.Contains(strings.Join(v, "\n"), want) {
			t.Errorf("%s: found %q", name, v)
		}
	}
}

func TestOnlyAGatewayMayAskCallersByTLSForNoCertificate(t *testing.T) {
	c := xdstest.Load(t, "../../xds/testdata/gateway")
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	if v := invariants.CheckGatewaySet(set); len(v) > 0 {
		t.Errorf("of a gateway: %q", v)
	}
	v := strings.Join(invariants.CheckSet(set), "\n")
	for _, want := range []string{"no client certificate is required", "the first filter does not demand one SPIFFE ID", "not verified against a bundle"} {
		if !strings.Contains(v, want) {
			t.Errorf("of a virtual node: want %q, found %q", want, v)
		}
	}
	// One that asks verifies, of a gateway, too.
	m, err := invariants.Decode(set.Get(ads.ListenerType, "lds_ingress_127.0.0.2_8444"))
	if err != nil {
		t.Fatal(err)
	}
	edit(t, m.(*listenerv3.Listener).FilterChains[0].GetTransportSocket().GetTypedConfig(), new(tlsv3.DownstreamTlsContext), func(c *tlsv3.DownstreamTlsContext) {
		c.CommonTlsContext.ValidationContextType = nil
	})
	if v := invariants.CheckGateway([]proto.Message{m}); !strings.Contains(strings.Join(v, "\n"), "not verified against a bundle") {
		t.Errorf("a certificate that is asked for and not verified: %q", v)
	}
}

func TestCheckSetReportsWhatItCannotDecode(t *testing.T) {
	set, err := ads.NewSet(&ads.Resource{Type: ads.ListenerType, Name: "x", Version: "1", Body: []byte{0xff}})
	if err != nil {
		t.Fatal(err)
	}
	if v := invariants.CheckSet(set); len(v) != 1 {
		t.Errorf("found %q", v)
	}
}

func TestAnIngressIsBelievedInItsOwnChainAlone(t *testing.T) {
	c := xdstest.Load(t, "../../xds/testdata/ingress")
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	for want, breaks := range map[string]func(*listenerv3.FilterChain){
		"":                                func(*listenerv3.FilterChain) {},
		"x-forwarded-for is believed":     func(c *listenerv3.FilterChain) { c.FilterChainMatch.DirectSourcePrefixRanges = nil },
		"request ids of callers are kept": func(c *listenerv3.FilterChain) { c.FilterChainMatch.DirectSourcePrefixRanges[0].PrefixLen = nil },
		"the agent is not shown the caller's certificate":     func(c *listenerv3.FilterChain) { c.FilterChainMatch.TransportProtocol = "tls" },
		"callers are at another ingress than they are":        func(c *listenerv3.FilterChain) { c.Name = "ingress-other" },
		"first filter does not demand one SPIFFE ID, or none": func(c *listenerv3.FilterChain) { c.TransportSocket = &corev3.TransportSocket{Name: "tls"} },
	} {
		m, err := invariants.Decode(set.Get(ads.ListenerType, "lds_ingress_127.0.0.2_8080"))
		if err != nil {
			t.Fatal(err)
		}
		chains := m.(*listenerv3.Listener).FilterChains
		breaks(chains[slices.IndexFunc(chains, func(c *listenerv3.FilterChain) bool { return c.Name == "ingress-alb" })])
		v := invariants.Check([]proto.Message{m})
		if want == "" && len(v) > 0 || !strings.Contains(strings.Join(v, "\n"), want) {
			t.Errorf("want %q, found %q", want, v)
		}
	}
}

func TestWhoAConnectionIsForIsSaidByALoadBalancerAlone(t *testing.T) {
	c := xdstest.Load(t, "../../xds/testdata/announced")
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	var lax anypb.Any
	if err := lax.MarshalFrom(&proxyprotocolv3.ProxyProtocol{AllowRequestsWithoutProxyProtocol: true}); err != nil {
		t.Fatal(err)
	}
	for want, breaks := range map[string]func(*listenerv3.Listener){
		"": func(*listenerv3.Listener) {},
		"anybody may say for whom": func(l *listenerv3.Listener) {
			l.FilterChains[0].FilterChainMatch.DirectSourcePrefixRanges = nil
		},
		"clients say for whom they call": func(l *listenerv3.Listener) {
			edit(t, l.FilterChains[0].Filters[0].GetTypedConfig(), new(hcmv3.HttpConnectionManager), func(h *hcmv3.HttpConnectionManager) {
				edit(t, h.GetEarlyHeaderMutationExtensions()[0].GetTypedConfig(), new(earlyv3.HeaderMutation), func(m *earlyv3.HeaderMutation) { m.Mutations = m.Mutations[:2] })
			})
		},
		"a connection may leave out for whom": func(l *listenerv3.Listener) {
			l.ListenerFilters[0].ConfigType = &listenerv3.ListenerFilter_TypedConfig{TypedConfig: &lax}
		},
	} {
		m, err := invariants.Decode(set.Get(ads.ListenerType, "lds_ingress_127.0.0.2_8080"))
		if err != nil {
			t.Fatal(err)
		}
		breaks(m.(*listenerv3.Listener))
		v := invariants.CheckGateway([]proto.Message{m})
		if want == "" && len(v) > 0 || !strings.Contains(strings.Join(v, "\n"), want) {
			t.Errorf("want %q, found %q", want, v)
		}
	}
}
