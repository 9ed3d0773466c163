package xds

import (
	"maps"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	actionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
	"signet.example/proxy"
)

// What App Mesh retries with where nothing is declared (AM-retry). The
// guide adds "reset"; a running proxy did not have it.
const (
	defaultRetries = 2
	hostAttempts   = 5
)

var defaultRetryOn = []string{"unavailable", connectFailure, refusedStream, retriableStatus}

// Envoy's conditions. The first three hold only for requests that were not
// served: the connection did not stand, the callee refused the stream, or its
// proxy says so by a header.
const (
	connectFailure   = "connect-failure"
	refusedStream    = "refused-stream"
	retriableHeaders = "retriable-headers"
	reset            = "reset"
	retriableStatus  = "retriable-status-codes"
)

// retryEvent is what one of App Mesh's events means to Envoy, and how much of it
// holds only for requests that were not served.
type retryEvent struct {
	on    []string
	codes []uint32
	safe  []string
}

// retryEvents is the documented map (AM-retry).
var retryEvents = map[string]retryEvent{
	"server-error":     {[]string{reset, retriableStatus}, []uint32{500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511}, safeConditions},
	"gateway-error":    {[]string{reset, retriableStatus}, []uint32{502, 503, 504}, safeConditions},
	"client-error":     {[]string{retriableStatus}, []uint32{409}, nil},
	"stream-error":     {[]string{refusedStream}, nil, []string{refusedStream}},
	"connection-error": {[]string{connectFailure}, nil, []string{connectFailure}},
}

// grpcRetryEvents are Envoy's conditions of the same names: the status with which the
// application itself answered before any message.
var grpcRetryEvents = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

var safeConditions = []string{connectFailure, refusedStream, retriableHeaders}

// retryOrder is the order in which conditions are written, so that equal
// policies give equal bytes.
var retryOrder = slices.Concat([]string{reset, connectFailure, refusedStream, retriableHeaders, retriableStatus}, grpcRetryEvents)

// idempotent are the methods that a proxy may repeat without knowing what they
// mean (RFC 9110 section 9.2.2). One that nobody knows is not among them.
var idempotent = []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}

// retryHeader adds conditions to the policy by which a request is repeated. Of callers it is
// dropped, and no request is sent on with it.
const retryHeader = "x-envoy-retry-on"

// repeatIdempotent is the filter that marks each request whose method is idempotent for the
// router, by retryHeader: its route's policy lists statuses on which these are repeated, and
// no other (decision 024). So one route is enough for all methods.
func (b *builder) repeatIdempotent() *hcmv3.HttpFilter {
	var methods []*matcherv3.Matcher_MatcherList_Predicate
	for _, m := range idempotent {
		methods = append(methods, b.methodIs(m))
	}
	others := &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_NotMatcher{
		NotMatcher: &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_OrMatcher{
			OrMatcher: &matcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: methods},
		}},
	}}
	return b.filter(repeatFilter, &matchingv3.ExtensionWithMatcher{
		XdsMatcher: &matcherv3.Matcher{MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{
			Matchers: []*matcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: others,
				OnMatch: &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
					Action: &xdscorev3.TypedExtensionConfig{Name: "skip", TypedConfig: b.any(&actionv3.SkipFilter{})},
				}},
			}},
		}}},
		ExtensionConfig: &corev3.TypedExtensionConfig{
			Name: repeatFilter,
			TypedConfig: b.any(&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
				RequestMutations: []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{Append: header(retryHeader, retriableStatus)}}},
			}}),
		},
	})
}

// Marked are the headers of a request behind the filters of a manager that repeats requests.
func Marked(method string, headers map[string][]string) map[string][]string {
	marked := maps.Clone(headers)
	maps.DeleteFunc(marked, func(name string, _ []string) bool { return strings.HasPrefix(name, "x-envoy-") })
	if slices.Contains(idempotent, method) {
		if marked == nil {
			marked = map[string][]string{}
		}
		marked[retryHeader] = []string{retriableStatus}
	}
	return marked
}

func (b *builder) methodIs(method string) *matcherv3.Matcher_MatcherList_Predicate {
	return &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: &xdscorev3.TypedExtensionConfig{Name: "method", TypedConfig: b.any(&inputsv3.HttpRequestHeaderMatchInput{HeaderName: ":method"})},
			Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
				ValueMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: method}},
			},
		},
	}}
}

// repeating has a route repeat requests as r says. Where a connection that ended is among
// that, the header of those that are idempotent says so, too; others have none that could.
func (b *builder) repeating(route *routev3.Route, r *mesh.Retry) *routev3.Route {
	if r == nil && b.sharedRetry() != nil {
		return route // by the policy of its virtual host
	}
	policy, on := b.retryPolicy(r)
	if route.GetRoute().RetryPolicy = policy; policy.GetRetryOn() != join(on) && slices.Contains(on, reset) {
		route.RequestHeadersToAdd = []*corev3.HeaderValueOption{{
			Header: &corev3.HeaderValue{Key: retryHeader, Value: reset + "," + retriableStatus}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
		}}
	}
	route.Metadata = b.unsafeMark(proxy.UnsafeRepeatAnyMethod)
	return route
}

// sharedRetry is the policy of a virtual host, for the routes that declare none: Envoy makes
// it once then, and not for each route. There is none where routes carry a mark beside their
// policy.
func (b *builder) sharedRetry() *routev3.RetryPolicy {
	if b.unsafe(proxy.UnsafeRepeatAnyMethod) {
		return nil
	}
	policy, _ := b.retryPolicy(nil)
	return policy
}

// notServed are the answers by which a callee's proxy says that the application
// did not get the request: it could not be reached, or nobody could decide.
func notServed() []*routev3.HeaderMatcher {
	return []*routev3.HeaderMatcher{
		{Name: proxy.HeaderNotServed, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}},
		{Name: proxy.HeaderDenied, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exact(string(proxy.ClassUnavailable))}},
	}
}

// retryPolicy repeats any request on what proves that it was not served, and one that is
// idempotent as declared: on is that, of which the policy itself says the statuses only.
func (b *builder) retryPolicy(r *mesh.Retry) (policy *routev3.RetryPolicy, on []string) {
	policy = &routev3.RetryPolicy{
		NumRetries:                    wrapperspb.UInt32(defaultRetries),
		RetriableStatusCodes:          []uint32{503},
		HostSelectionRetryMaxAttempts: hostAttempts,
		// A second attempt goes to another endpoint where there is one.
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: b.any(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
	}
	unserved, on := safeConditions, defaultRetryOn
	if r != nil {
		unserved, on, policy.RetriableStatusCodes = declared(r)
		policy.NumRetries = wrapperspb.UInt32(r.MaxRetries)
		if r.PerTry > 0 {
			policy.PerTryTimeout = duration(r.PerTry)
		}
	}
	if b.unsafe(proxy.UnsafeRepeatAnyMethod) {
		unserved = on
	}
	if policy.RetryOn = join(unserved); slices.Contains(unserved, retriableHeaders) {
		policy.RetriableHeaders = notServed()
	}
	return policy, on
}

// declared are the conditions and statuses of a route's events, and the conditions of these
// that hold for requests that were not served. Whoever declares a status of gRPC knows the
// calls, as no proxy does (decision 054).
func declared(r *mesh.Retry) (unserved, on []string, codes []uint32) {
	unserved, on = slices.Clone(r.GRPC), slices.Clone(r.GRPC)
	for _, e := range slices.Concat(r.HTTP, r.TCP) {
		event := retryEvents[e]
		unserved, on, codes = append(unserved, event.safe...), append(on, event.on...), append(codes, event.codes...)
	}
	slices.Sort(codes)
	return unserved, on, slices.Compact(codes)
}

// join writes conditions in their order, each once.
func join(on []string) string {
	var ordered []string
	for _, o := range retryOrder {
		if slices.Contains(on, o) {
			ordered = append(ordered, o)
		}
	}
	return strings.Join(ordered, ",")
}
