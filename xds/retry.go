package xds

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
)

// What App Mesh retries with where nothing is declared (REFERENCE 4.3). The
// guide adds "reset"; a running proxy did not have it, and it would send a
// request twice that the callee may have served.
const (
	defaultRetryOn = "unavailable,connect-failure,refused-stream,retriable-status-codes"
	defaultRetries = 2
	hostAttempts   = 5
)

// retryEvent is what one of App Mesh's events means to Envoy.
type retryEvent struct {
	on    []string
	codes []uint32
}

const retriableStatus = "retriable-status-codes"

// retryEvents is the documented map (REFERENCE 4.3).
var retryEvents = map[string]retryEvent{
	"server-error":     {[]string{"reset", retriableStatus}, []uint32{500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511}},
	"gateway-error":    {[]string{"reset", retriableStatus}, []uint32{502, 503, 504}},
	"client-error":     {[]string{retriableStatus}, []uint32{409}},
	"stream-error":     {[]string{"refused-stream"}, nil},
	"connection-error": {[]string{"connect-failure"}, nil},
}

// retryOrder is the order in which conditions are written, so that equal
// policies give equal bytes.
var retryOrder = []string{"reset", "connect-failure", "refused-stream", retriableStatus}

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
	out.RetryOn, out.RetriableStatusCodes = retryOn(slices.Concat(r.HTTP, r.TCP))
	out.NumRetries = wrapperspb.UInt32(r.MaxRetries)
	if r.PerTry > 0 {
		out.PerTryTimeout = duration(r.PerTry)
	}
	return out
}

func retryOn(events []string) (string, []uint32) {
	var (
		on    []string
		codes []uint32
	)
	for _, e := range events {
		on = append(on, retryEvents[e].on...)
		codes = append(codes, retryEvents[e].codes...)
	}
	slices.Sort(codes)
	var ordered []string
	for _, o := range retryOrder {
		if slices.Contains(on, o) {
			ordered = append(ordered, o)
		}
	}
	return strings.Join(ordered, ","), slices.Compact(codes)
}
