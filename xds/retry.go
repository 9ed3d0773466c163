package xds

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
	"signet.example/proxy"
)

// What App Mesh retries with where nothing is declared (AM-retry). The
// guide adds "reset"; a running proxy did not have it.
const (
	defaultRetryOn = "unavailable,connect-failure,refused-stream,retriable-status-codes"
	defaultRetries = 2
	hostAttempts   = 5
)

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

// notIdempotent narrows m to the methods that are not idempotent. One expression that names
// those which are would cost Envoy more to compile than all the rest of the route to make.
func notIdempotent(m *routev3.RouteMatch) *routev3.RouteMatch {
	for _, method := range idempotent {
		m.Headers = append(m.Headers, headerMatch(mesh.HeaderMatch{Name: ":method", Exact: method, Invert: true}))
	}
	return m
}

// retries are the ways in which a route repeats requests: as declared those
// that are idempotent, and any other only if it was not served (decision 024).
// Where both are the same, repeat holds for all; nil means never.
type retries struct {
	repeat, unserved *routev3.RetryPolicy
}

func (b *builder) retries(r *mesh.Retry) retries {
	if r != nil {
		return b.newRetries(r)
	}
	if b.usual == nil {
		usual := b.newRetries(nil)
		b.usual = &usual
	}
	return *b.usual
}

// sharedRetry is the policy of a virtual host, for the routes that have none of their own:
// that of the requests that are not idempotent where nothing is declared. Envoy makes it once
// then, and not for each route. There is none where routes carry a mark beside their policy.
func (b *builder) sharedRetry() *routev3.RetryPolicy {
	if b.unsafe(proxy.UnsafeRepeatAnyMethod) {
		return nil
	}
	return b.retries(nil).unserved
}

// ownRetry is what a route has of a policy beside that of its virtual host.
func (b *builder) ownRetry(p *routev3.RetryPolicy) *routev3.RetryPolicy {
	switch shared := b.sharedRetry(); {
	case shared == nil:
		return p
	case p == nil:
		return &routev3.RetryPolicy{} // or it would have that of the host
	case p == shared:
		return nil
	}
	return p
}

func (b *builder) newRetries(r *mesh.Retry) retries {
	declared, safe := b.retryPolicy(r), b.retryPolicy(r)
	if b.unsafe(proxy.UnsafeRepeatAnyMethod) {
		return retries{declared, declared}
	}
	safe.RetriableStatusCodes = nil
	safe.RetryOn = join(safeConditions)
	if r != nil {
		var on []string
		for _, e := range slices.Concat(r.HTTP, r.TCP) {
			on = append(on, retryEvents[e].safe...)
		}
		// Whoever declares a status knows the calls, as no proxy does (decision 054).
		on = append(on, r.GRPC...)
		safe.RetryOn = join(on)
	}
	switch {
	case safe.GetRetryOn() == declared.GetRetryOn():
		return retries{declared, declared}
	case safe.GetRetryOn() == "":
		return retries{declared, nil}
	}
	if strings.Contains(safe.GetRetryOn(), retriableHeaders) {
		safe.RetriableHeaders = notServed()
	}
	return retries{declared, safe}
}

// notServed are the answers by which a callee's proxy says that the application
// did not get the request: it could not be reached, or nobody could decide.
func notServed() []*routev3.HeaderMatcher {
	return []*routev3.HeaderMatcher{
		{Name: proxy.HeaderNotServed, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}},
		{Name: proxy.HeaderDenied, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exact(string(proxy.ClassUnavailable))}},
	}
}

func (b *builder) retryPolicy(r *mesh.Retry) *routev3.RetryPolicy {
	out := &routev3.RetryPolicy{
		RetryOn:                       defaultRetryOn,
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
	if r == nil {
		return out
	}
	out.RetryOn, out.RetriableStatusCodes = retryOn(slices.Concat(r.HTTP, r.TCP), r.GRPC)
	out.NumRetries = wrapperspb.UInt32(r.MaxRetries)
	if r.PerTry > 0 {
		out.PerTryTimeout = duration(r.PerTry)
	}
	return out
}

func retryOn(events, statuses []string) (string, []uint32) {
	on := slices.Clone(statuses)
	var codes []uint32
	for _, e := range events {
		on = append(on, retryEvents[e].on...)
		codes = append(codes, retryEvents[e].codes...)
	}
	slices.Sort(codes)
	return join(on), slices.Compact(codes)
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
