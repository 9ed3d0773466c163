package predict

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// retryHeader is where a request has conditions of its own.
const retryHeader = "x-envoy-retry-on"

// byStatus is the condition without which the statuses of a policy mean nothing.
const byStatus = "retriable-status-codes"

// retryOf is the policy of a route, or else of its virtual host, with the conditions that a
// request adds; nil where it is sent once.
func retryOf(host *routev3.VirtualHost, route *routev3.Route, r Request) *routev3.RetryPolicy {
	policy := route.GetRoute().GetRetryPolicy()
	if policy == nil {
		policy = host.GetRetryPolicy()
	}
	if route.GetRoute() == nil || policy == nil || policy.GetNumRetries().GetValue() == 0 && policy.GetNumRetries() != nil {
		return nil
	}
	policy = proto.CloneOf(policy)
	on := conditions(policy.GetRetryOn())
	for _, c := range conditions(retryHeaderOf(route, r)) {
		if !slices.Contains(on, c) && (c != byStatus || len(policy.GetRetriableStatusCodes()) > 0) {
			on = append(on, c)
		}
	}
	if len(on) == 0 {
		return nil
	}
	if policy.RetryOn = strings.Join(on, ","); !slices.Contains(on, byStatus) {
		policy.RetriableStatusCodes = nil
	}
	return policy
}

// retryHeaderOf is what the router finds in a request's retryHeader.
func retryHeaderOf(route *routev3.Route, r Request) string {
	if len(r.Headers[retryHeader]) == 0 {
		return ""
	}
	for _, h := range route.GetRequestHeadersToAdd() {
		if h.GetHeader().GetKey() == retryHeader && h.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS {
			return h.GetHeader().GetValue()
		}
	}
	return r.Headers[retryHeader][0]
}

func conditions(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(c string) bool { return c == "" })
}
