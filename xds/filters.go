package xds

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	upstreamcodecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/proxy"
)

// The HTTP filters, by the names that routes refer to.
const (
	refuseFilter       = "signet.refuse_ambiguous"
	withoutChainFilter = "signet.without_chain"
	strangersFilter    = "signet.without_proxys_word"
	repeatFilter       = "signet.repeat_idempotent"
	codecFilter        = "envoy.filters.http.upstream_codec"
	authzFilter        = "envoy.filters.http.ext_authz"
	routerFilter       = "envoy.filters.http.router"
)

// ingressFilters is the only chain that an inbound manager gets: refuse what is
// ambiguous, ask, take the caller's chain away, forward. A gateway repeats requests, as the
// proxy of a caller does.
func (b *builder) ingressFilters(c callers) []*hcmv3.HttpFilter {
	filters := []*hcmv3.HttpFilter{
		b.filter(refuseFilter, refuseAmbiguous(b.queryGrammar())),
		b.filter(authzFilter, b.extAuthz(c)),
		b.filter(withoutChainFilter, b.withoutChain()),
	}
	if b.node.Gateway != nil {
		filters = append(filters, b.repeatIdempotent())
	}
	return append(filters, b.router())
}

// router adds x-envoy-* headers to requests and answers unless the mesh has none.
func (b *builder) router() *hcmv3.HttpFilter {
	return b.filter(routerFilter, &routerv3.Router{SuppressEnvoyHeaders: b.read.withoutEnvoyHeaders(b.node.Mesh)})
}

func (b *builder) queryGrammar() string {
	if b.unsafe(proxy.UnsafeQuerySemicolons) {
		return anyQuery
	}
	return plainQuery
}

// egressFilters has no authorization: the callee decides (D23),
// on the query as well.
func (b *builder) egressFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		b.filter(refuseFilter, refuseAmbiguous(anyQuery)),
		b.repeatIdempotent(),
		b.router(),
	}
}

// strangersFilters take from a stranger's answer what only a proxy of the mesh says, at the
// cluster: before the router judges whether to send the request again.
func (b *builder) strangersFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		b.filter(strangersFilter, &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
			ResponseMutations: []*mutationv3.HeaderMutation{proxysWord()}, ResponseTrailersMutations: []*mutationv3.HeaderMutation{proxysWord()},
		}}),
		b.filter(codecFilter, &upstreamcodecv3.UpstreamCodec{}),
	}
}

func (b *builder) filter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(m)}}
}

// extAuthz asks the agent, and denies whenever there is no answer.
func (b *builder) extAuthz(c callers) *authzv3.ExtAuthz {
	return &authzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		Services: &authzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: authzCluster}},
			Timeout:         duration(proxy.AnswerWithin),
			InitialMetadata: b.questions(c),
		}},
		FailureModeAllow: false, // stated: the one field that must never change
		StatusOnError:    &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		// Policies must see each value of a repeated header (A03).
		EncodeRawHeaders: true,
		// The agent looks at what Envoy does not of the caller's certificate (020).
		IncludePeerCertificate: !c.foreign(),
		// An answer with an invalid header is an error, not a request with part of it.
		ValidateMutations:          true,
		DecoderHeaderMutationRules: mutationRules(),
	}
}

// withoutChain writes x-forwarded-client-cert again, where there is one, as Envoy
// would without the caller's chain, which is there for the agent alone: how large
// it is is the caller's choice, and applications read that header.
// Nor do trailers of a request reach the application, which come after the decision;
// and of an answer, no trailer says what only a proxy says. What the manager itself adds as
// x-envoy-* goes where the mesh has none of these.
func (b *builder) withoutChain() *headermutationv3.HeaderMutation {
	m := &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{
				Key:   "x-forwarded-client-cert",
				Value: "By=%DOWNSTREAM_LOCAL_URI_SAN%;Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;URI=%DOWNSTREAM_PEER_URI_SAN%",
			},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
		}}}},
		RequestTrailersMutations:  []*mutationv3.HeaderMutation{removed(wholeRegex(".*"))},
		ResponseTrailersMutations: []*mutationv3.HeaderMutation{proxysWord()},
	}}
	if b.read.withoutEnvoyHeaders(b.node.Mesh) {
		m.Mutations.RequestMutations = append(m.Mutations.RequestMutations, removed(envoyHeaders()))
	}
	return m
}

// proxysWord takes away what only a proxy of the mesh says.
func proxysWord() *mutationv3.HeaderMutation {
	return removed(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: proxy.HeaderPrefix}})
}

// removed is what the names of headers, or of trailers, match.
func removed(names *matcherv3.StringMatcher) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: names},
	}}
}

// mutationRules: a policy may add headers, but what it decided on stays as it
// was, and so does the caller's identity. By default Envoy would protect host
// and method and let :path be changed (measured).
func mutationRules() *mutationv3.HeaderMutationRules {
	return &mutationv3.HeaderMutationRules{
		DisallowSystem:     wrapperspb.Bool(true),
		DisallowExpression: &matcherv3.RegexMatcher{Regex: "host|x-forwarded-.*"},
		DisallowIsError:    wrapperspb.Bool(true),
	}
}

// stamp is the policy revision that the configuration belongs to. It sits in
// the routes, so that a new policy replaces routes and drains no connection.
func (b *builder) stamp() map[string]*anypb.Any {
	return map[string]*anypb.Any{authzFilter: b.any(&authzv3.ExtAuthzPerRoute{
		Override: &authzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: &authzv3.CheckSettings{
			ContextExtensions: map[string]string{proxy.PolicyRevisionKey: b.read.policyRevision()},
		}},
	})}
}

// proxyHeaders are never taken from an application: only a proxy says such a thing.
func proxyHeaders() []string {
	return []string{proxy.HeaderDecisionID, proxy.HeaderDenied, proxy.HeaderNotServed}
}

// header sets one header to a value of our own making.
func header(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
