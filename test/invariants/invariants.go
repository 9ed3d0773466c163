// Package invariants looks at configurations of Envoy for what must be true of
// every one that a proxy of ours runs. It shares nothing with the package that
// makes them, not even a name: what both had wrong would be found by neither.
package invariants

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	connauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"signet.example/ads"
	"signet.example/proxy"
)

// Check looks for what must be true of every configuration that a
// proxy of ours runs, and returns a sentence for each violation:
//
//   - no way round authorization: in every inbound HTTP manager, ambiguous
//     requests are refused and ext_authz asked before the router, in that order;
//     nothing allows on failure, switches the filter off, makes it optional or
//     sends it elsewhere, in a listener or in a route; inbound routes are stamped;
//   - no outbound listener that does not ask the agent who calls, or that lets out
//     whom it got no answer for;
//   - no inbound listener but with an HTTP manager, or, not at a gateway, with connections
//     that are asked about first: nothing else authorizes;
//   - nothing is opened for a connection, in either direction, before it is asked about,
//     and each has an end;
//   - callers by TLS have one SPIFFE ID, and the agent sees their chain;
//   - no CONNECT, by upgrade, route or HTTP/2 setting;
//   - hardened managers (D20);
//   - no retry of what may have been served, except of idempotent methods, of calls of
//     gRPC that the application answered with a status, and where the mesh lets it by
//     name, as the route then says;
//   - a post-quantum key exchange is preferred in every TLS context;
//   - verification wherever a certificate is asked for: TLS 1.3, certificates and
//     authorities by SDS, names that are compared, no session resumption.
//
// It works on resources as well as on a proxy's own config dump (admin v3
// ConfigDump), and knows nothing of how a configuration was made. What it
// cannot read is a violation.
func Check(ms []proto.Message) []string { return check(ms, checker{}) }

// CheckGateway is Check of a virtual gateway's proxy, whose callers are outside of the
// mesh: a listener with TLS may ask them for no certificate at all. One that asks
// verifies what it is shown, as everywhere.
func CheckGateway(ms []proto.Message) []string { return check(ms, checker{gateway: true}) }

func check(ms []proto.Message, c checker) []string {
	for _, m := range ms {
		walk(m, c.visit, func(path, typeURL string) { c.say(path, "type %q cannot be read", typeURL) })
	}
	slices.Sort(c.violations)
	return slices.Compact(c.violations)
}

// CheckSet is [Check] for the Envoy resources of a set.
func CheckSet(s *ads.Set) []string { return checkSet(s, Check) }

// CheckGatewaySet is [CheckGateway] for the Envoy resources of a set.
func CheckGatewaySet(s *ads.Set) []string { return checkSet(s, CheckGateway) }

func checkSet(s *ads.Set, check func([]proto.Message) []string) []string {
	var (
		ms       []proto.Message
		problems []string
	)
	for _, t := range []string{ads.ListenerType, ads.RouteType, ads.ClusterType, ads.EndpointType} {
		for _, r := range s.Type(t) {
			m, err := Decode(r)
			if err != nil {
				problems = append(problems, err.Error())
				continue
			}
			ms = append(ms, m)
		}
	}
	return append(problems, check(ms)...)
}

// Decode decodes the body of a resource.
func Decode(r *ads.Resource) (proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(r.Type)
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", r.Name, err)
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(r.Body, m); err != nil {
		return nil, fmt.Errorf("resource %s: %w", r.Name, err)
	}
	return m, nil
}

type checker struct {
	violations []string
	gateway    bool
}

func (c *checker) say(path, format string, args ...any) {
	c.violations = append(c.violations, path+": "+fmt.Sprintf(format, args...))
}

func (c *checker) visit(v visited) {
	switch m := v.m.(type) {
	case *listenerv3.Listener:
		c.listener(v.path, m)
	case *hcmv3.HttpConnectionManager:
		c.manager(v, m)
	case *hcmv3.HttpConnectionManager_UpgradeConfig:
		c.upgrade(v.path, m.GetUpgradeType())
	case *hcmv3.HttpFilter:
		if m.GetDisabled() || m.GetIsOptional() {
			c.say(v.path, "filter %s is disabled or optional", m.GetName())
		}
	case *authzv3.ExtAuthz:
		c.extAuthz(v, m)
	case *authzv3.ExtAuthzPerRoute:
		c.perRoute(v.path, m)
	case *rbacv3.RBACPerRoute:
		c.say(v.path, "a route overrides what is refused as ambiguous")
	case *routev3.FilterConfig:
		c.say(v.path, "a route overrides a filter")
	case *routev3.RouteConfiguration:
		c.routes(v.path, m)
	case *routev3.VirtualHost:
		c.retries(v.path, m)
	case *routev3.RouteMatch_ConnectMatcher:
		c.say(v.path, "a route takes CONNECT")
	case *routev3.RouteAction_UpgradeConfig:
		c.upgrade(v.path, m.GetUpgradeType())
	case *corev3.HeaderValueOption:
		c.header(v, m)
	case *matchingv3.ExtensionWithMatcher:
		if !proto.Equal(m, repeatIdempotent) {
			c.say(v.path, "a filter is passed by for some requests")
		}
	case *corev3.Http2ProtocolOptions:
		if m.GetAllowConnect() {
			c.say(v.path, "HTTP/2 CONNECT is allowed")
		}
	case *tlsv3.DownstreamTlsContext:
		c.downstream(v.path, m)
	case *tlsv3.UpstreamTlsContext:
		c.upstream(v, m)
	}
}

func (c *checker) upgrade(path, kind string) {
	if !strings.EqualFold(kind, "websocket") {
		c.say(path, "upgrade to %q", kind)
	}
}

// listener: a network filter other than the HTTP manager would be a way in that
// nothing authorizes.
func (c *checker) listener(path string, m *listenerv3.Listener) {
	chains := m.GetFilterChains()
	if d := m.GetDefaultFilterChain(); d != nil {
		chains = append(slices.Clone(chains), d)
	}
	if m.GetFilterChainMatcher() != nil || m.GetApiListener() != nil {
		c.say(path, "listener %s: a way in that is not checked", m.GetName())
	}
	c.announced(path, m, chains)
	if m.GetTrafficDirection() == corev3.TrafficDirection_OUTBOUND {
		c.outbound(path, m, chains)
		if at := m.GetAddress().GetPipe(); at != nil && at.GetMode() != 0o600 && at.GetMode() != 0o660 {
			c.say(path, "listener %s: a way out that others than its group can open, mode %#o", m.GetName(), at.GetMode())
		}
		return
	}
	for _, chain := range chains {
		filters := chain.GetFilters()
		if len(filters) == 1 && filters[0].GetTypedConfig().MessageIs((*directv3.Config)(nil)) { // closes
			continue
		}
		public := c.gateway && asksForNoCertificate(chain.GetTransportSocket())
		if chain.GetTransportSocket() != nil && !public {
			foreign := trustsFile(chain.GetTransportSocket())
			if first := map[bool]*networkrbacv3.RBAC{false: oneSVID, true: noSVID}[foreign]; len(filters) == 0 || !is(filters[0], first) {
				c.say(path, "listener %s, filter chain %q: the first filter does not demand one SPIFFE ID, or none of a file's authority", m.GetName(), chain.GetName())
				continue
			}
			filters = filters[1:]
			if len(filters) == 1 && saysForeign(filters[0]) != foreign {
				c.say(path, "listener %s, filter chain %q: the agent is told the wrong thing of who vouches for callers", m.GetName(), chain.GetName())
			}
		}
		if !c.gateway && len(filters) == 2 && asksAuthz(filters[0], chain) && c.carries(path, m.GetName(), filters[1]) {
			if !saysPort(m, filters[0]) {
				c.say(path, "listener %s, filter chain %q: the agent does not hear to which port a connection came", m.GetName(), chain.GetName())
			}
			continue
		}
		if len(filters) != 1 || !filters[0].GetTypedConfig().MessageIs((*hcmv3.HttpConnectionManager)(nil)) {
			c.say(path, "listener %s, filter chain %q: not exactly one HTTP manager", m.GetName(), chain.GetName())
		}
	}
}

// outbound: whoever calls out was asked for by the agent first, and has a bound that is not the
// callers'.
func (c *checker) outbound(path string, l *listenerv3.Listener, chains []*listenerv3.FilterChain) {
	name := l.GetName()
	for _, chain := range chains {
		f := chain.GetFilters()
		if !l.GetIgnoreGlobalConnLimit() { // else its bootstrap has one, by its name
			var limit limitv3.ConnectionLimit
			if len(f) == 0 || f[0].GetTypedConfig().UnmarshalTo(&limit) != nil || limit.GetMaxConnections().GetValue() == 0 {
				c.say(path, "listener %s, filter chain %q: a way out that can take all connections of the ways in", name, chain.GetName())
				continue
			}
			f = f[1:]
		}
		if len(f) == 1 && f[0].GetTypedConfig().MessageIs((*directv3.Config)(nil)) { // closes
			continue
		}
		if len(f) != 2 || !isAsked(f[0], wayoutAuthz) ||
			!f[1].GetTypedConfig().MessageIs((*hcmv3.HttpConnectionManager)(nil)) && !c.carries(path, name, f[1]) {
			c.say(path, "listener %s, filter chain %q: a way out that does not ask who calls", name, chain.GetName())
		}
	}
}

// isAsked reports whether a filter asks about a connection, in these words.
func isAsked(f *listenerv3.Filter, want *connauthzv3.ExtAuthz) bool {
	var ask connauthzv3.ExtAuthz
	if f.GetTypedConfig().UnmarshalTo(&ask) != nil {
		return false
	}
	if g := ask.GetGrpcService(); g != nil {
		g.InitialMetadata = ofCallers(g.GetInitialMetadata())
	}
	return proto.Equal(&ask, want)
}

// saysPort reports whether such a filter of an inbound listener tells the agent its port.
func saysPort(l *listenerv3.Listener, f *listenerv3.Filter) bool {
	var ask connauthzv3.ExtAuthz
	return f.GetTypedConfig().UnmarshalTo(&ask) == nil && portSaid(l, ask.GetGrpcService())
}

// portSaid: a connection's own end may be what its sender wrote.
func portSaid(l *listenerv3.Listener, g *corev3.GrpcService) bool {
	said := slices.DeleteFunc(slices.Clone(g.GetInitialMetadata()), func(h *corev3.HeaderValue) bool { return h.GetKey() != portKey })
	return len(said) == 1 && said[0].GetValue() == strconv.FormatUint(uint64(l.GetAddress().GetSocketAddress().GetPortValue()), 10)
}

// asksAuthz: by the chain, the agent is shown the caller's certificate, or told that it is
// a file's authority that vouches for callers; in plaintext there is none to be shown.
func asksAuthz(f *listenerv3.Filter, chain *listenerv3.FilterChain) bool {
	tls := chain.GetTransportSocket()
	foreign := proto.CloneOf(authzConnection)
	foreign.IncludePeerCertificate = false
	foreign.GetGrpcService().InitialMetadata = []*corev3.HeaderValue{{Key: "x-signet-callers", Value: "foreign"}}
	if at := ingressOf(chain); at != "" {
		ingress := proto.CloneOf(authzConnection)
		ingress.GetGrpcService().InitialMetadata = ingressSaid(at)
		return isAsked(f, ingress)
	}
	if tls == nil {
		return isAsked(f, authzConnection) || isAsked(f, foreign)
	}
	return isAsked(f, map[bool]*connauthzv3.ExtAuthz{false: authzConnection, true: foreign}[trustsFile(tls)])
}

// carries reports whether a filter carries bytes, and looks at how: Envoy connects before
// any filter is asked unless it is told to wait for the client's first bytes.
func (c *checker) carries(path, name string, f *listenerv3.Filter) bool {
	var m tcpv3.TcpProxy
	if f.GetTypedConfig().UnmarshalTo(&m) != nil {
		return false
	}
	if m.GetUpstreamConnectMode() != tcpv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA {
		c.say(path, "listener %s opens connections before they are asked about", name)
	}
	if n := m.GetMaxEarlyDataBytes().GetValue(); n == 0 || n > 64<<10 {
		c.say(path, "listener %s keeps %d bytes of an undecided connection", name, n)
	}
	if m.GetMaxDownstreamConnectionDuration().AsDuration() <= 0 && !passesOn(m.GetCluster()) {
		c.say(path, "connections of listener %s have no end", name)
	}
	if m.GetTunnelingConfig() != nil || m.GetOnDemand() != nil {
		c.say(path, "listener %s leads elsewhere", name)
	}
	return true
}

// passesOn: to what is no member of the mesh, with no identity that could be taken back.
func passesOn(cluster string) bool {
	return strings.HasSuffix(cluster, "_mesh-allow-all") || strings.HasSuffix(cluster, "_amazonaws")
}

func asksForNoCertificate(s *corev3.TransportSocket) bool {
	var m tlsv3.DownstreamTlsContext
	return s.GetTypedConfig().UnmarshalTo(&m) == nil && !m.GetRequireClientCertificate().GetValue() && m.GetCommonTlsContext().GetValidationContextType() == nil
}

func is(f *listenerv3.Filter, want *networkrbacv3.RBAC) bool {
	var got networkrbacv3.RBAC
	return f.GetTypedConfig().UnmarshalTo(&got) == nil && proto.Equal(&got, want)
}

// trustsFile: authorities of a file say who calls.
func trustsFile(s *corev3.TransportSocket) bool {
	var m tlsv3.DownstreamTlsContext
	if s.GetTypedConfig().UnmarshalTo(&m) != nil {
		return false
	}
	_, file := proxy.ParseTLSFiles(m.GetCommonTlsContext().GetCombinedValidationContext().GetValidationContextSdsSecretConfig().GetName())
	return file
}

// saysForeign: the agent is told that callers by TLS have no identity.
func saysForeign(f *listenerv3.Filter) bool {
	var m hcmv3.HttpConnectionManager
	return f.GetTypedConfig().UnmarshalTo(&m) == nil && managerSaysForeign(&m)
}

func managerSaysForeign(m *hcmv3.HttpConnectionManager) bool {
	return slices.ContainsFunc(m.GetHttpFilters(), func(f *hcmv3.HttpFilter) bool {
		var a authzv3.ExtAuthz
		return f.GetTypedConfig().UnmarshalTo(&a) == nil && foreignTold(&a)
	})
}

// toldOfCallers is what the agent hears of who calls.
func toldOfCallers(a *authzv3.ExtAuthz) []*corev3.HeaderValue {
	return ofCallers(a.GetGrpcService().GetInitialMetadata())
}

func ofCallers(said []*corev3.HeaderValue) []*corev3.HeaderValue {
	return slices.DeleteFunc(slices.Clone(said), func(h *corev3.HeaderValue) bool { return slices.Contains(ofRequests, h.GetKey()) })
}

func foreignTold(a *authzv3.ExtAuthz) bool {
	told := toldOfCallers(a)
	return len(told) == 1 && told[0].GetKey() == "x-signet-callers" && told[0].GetValue() == "foreign"
}

// routes: what is named as inbound must carry a policy revision on every
// virtual host, and only that.
func (c *checker) routes(path string, m *routev3.RouteConfiguration) {
	if !strings.HasPrefix(m.GetName(), "rds_ingress_") {
		return
	}
	for _, h := range m.GetVirtualHosts() {
		var per authzv3.ExtAuthzPerRoute
		a := h.GetTypedPerFilterConfig()[authzFilter]
		if a == nil || a.UnmarshalTo(&per) != nil {
			c.say(path, "virtual host %s has no policy revision", h.GetName())
			continue
		}
		if _, ok := per.GetCheckSettings().GetContextExtensions()[policyRevisionKey]; !ok {
			c.say(path, "virtual host %s has no policy revision", h.GetName())
		}
	}
}

// retries: any method may be sent again only on conditions that hold for requests
// which were not served.
func (c *checker) retries(path string, h *routev3.VirtualHost) {
	c.retry(path, "virtual host "+h.GetName(), h.GetRetryPolicy(), nil)
	for _, r := range h.GetRoutes() {
		if !r.GetMetadata().GetFilterMetadata()[proxy.UnsafeAnnotation].GetFields()[proxy.UnsafeRepeatAnyMethod].GetBoolValue() {
			c.retry(path, "route "+r.GetName(), r.GetRoute().GetRetryPolicy(), r.GetMatch())
		}
	}
}

// retryHeader adds conditions to a request's retry policy.
const retryHeader = "x-envoy-retry-on"

// header: to Envoy itself one filter speaks by headers, of requests whose method is idempotent;
// where it has, a route may say more.
func (c *checker) header(v visited, m *corev3.HeaderValueOption) {
	key := strings.ToLower(m.GetHeader().GetKey())
	if f, ok := parent[*matchingv3.ExtensionWithMatcher](v); ok && proto.Equal(f, repeatIdempotent) || !strings.HasPrefix(key, "x-envoy-") {
		return
	}
	if _, ok := parent[*routev3.Route](v); !ok || key != retryHeader || m.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS {
		c.say(v.path, "%s is set of requests of any method", key)
	}
}

func (c *checker) retry(path, what string, p *routev3.RetryPolicy, m *routev3.RouteMatch) {
	for on := range strings.SplitSeq(p.GetRetryOn(), ",") {
		if on != "" && !slices.Contains(safeConditions, on) && (m.GetGrpc() == nil || !slices.Contains(grpcStatuses, on)) {
			c.say(path, "%s repeats what may have been served: %s", what, on)
		}
	}
	for _, h := range p.GetRetriableHeaders() {
		if !slices.ContainsFunc(notServed, func(w *routev3.HeaderMatcher) bool { return proto.Equal(h, w) }) {
			c.say(path, "%s repeats by the header %s", what, h.GetName())
		}
	}
}

func (c *checker) extAuthz(v visited, m *authzv3.ExtAuthz) {
	path := v.path
	if m.GetFailureModeAllow() {
		c.say(path, "failure_mode_allow")
	}
	// filter_enabled_metadata skips the filter where metadata is absent (measured: A06).
	if m.GetFilterEnabled() != nil || m.GetFilterEnabledMetadata() != nil || m.GetDenyAtDisable() != nil || m.GetShadowMode() {
		c.say(path, "authorization can be skipped")
	}
	if m.GetGrpcService().GetEnvoyGrpc().GetClusterName() != authzCluster {
		c.say(path, "authorization does not ask %s", authzCluster)
	}
	if code := m.GetStatusOnError().GetCode(); code != 0 && code < 400 {
		c.say(path, "status on error is %d", code)
	}
	if !proto.Equal(m.GetDecoderHeaderMutationRules(), mutationRules) {
		c.say(path, "an answer may change what was decided on")
	}
	if !m.GetEncodeRawHeaders() {
		c.say(path, "repeated headers are joined")
	}
	chain, _ := parent[*listenerv3.FilterChain](v)
	at := ingressOf(chain)
	if m.GetIncludePeerCertificate() == foreignTold(m) || !foreignTold(m) && at == "" && len(toldOfCallers(m)) > 0 {
		c.say(path, "the agent is not shown the caller's certificate")
	}
	if l, ok := parent[*listenerv3.Listener](v); ok && !portSaid(l, m.GetGrpcService()) {
		c.say(path, "the agent does not hear to which port a request came")
	}
	if at != "" && !proto.Equal(&corev3.GrpcService{InitialMetadata: toldOfCallers(m)}, &corev3.GrpcService{InitialMetadata: ingressSaid(at)}) {
		c.say(path, "the agent hears that callers are at another ingress than they are")
	}
}

func (c *checker) perRoute(path string, m *authzv3.ExtAuthzPerRoute) {
	s := m.GetCheckSettings()
	if s == nil {
		c.say(path, "a route disables authorization")
		return
	}
	if s.GetGrpcService() != nil || s.GetHttpService() != nil {
		c.say(path, "a route sends authorization elsewhere")
	}
}
