package invariants

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// ingressOf is the name of the ingress whose callers alone reach a filter chain: by plaintext,
// from ranges of the connection's own peer, none of which is every address. What such callers
// say of others is believed; "" for any other chain.
func ingressOf(chain *listenerv3.FilterChain) string {
	name, ok := strings.CutPrefix(chain.GetName(), "ingress-")
	m := chain.GetFilterChainMatch()
	everybody := func(r *corev3.CidrRange) bool { return r.GetPrefixLen().GetValue() == 0 }
	switch ranges := m.GetDirectSourcePrefixRanges(); {
	case !ok, len(ranges) == 0, slices.ContainsFunc(ranges, everybody):
		return ""
	case chain.GetTransportSocket() != nil, m.GetTransportProtocol() != "raw_buffer" && m.GetTransportProtocol() != "":
		return ""
	}
	return name
}

// ingressSaid is what the agent hears of such callers, and nothing else.
func ingressSaid(name string) []*corev3.HeaderValue {
	return []*corev3.HeaderValue{{Key: "x-signet-callers", Value: "ingress/" + name}}
}
