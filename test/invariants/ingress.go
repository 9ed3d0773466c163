package invariants

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
)

// ingressOf is the name of the ingress whose callers alone reach a filter chain: by plaintext,
// from ranges of the connection's own peer, none of which is every address. What such callers
// say of others is believed; "" for any other chain.
func ingressOf(chain *listenerv3.FilterChain) string {
	name, ok := strings.CutPrefix(chain.GetName(), "ingress-")
	m := chain.GetFilterChainMatch()
	switch {
	case !ok, !fromSomewhere(chain):
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

// fromSomewhere reports whether a chain takes connections of some peers alone, by their own
// addresses.
func fromSomewhere(chain *listenerv3.FilterChain) bool {
	ranges := chain.GetFilterChainMatch().GetDirectSourcePrefixRanges()
	everybody := func(r *corev3.CidrRange) bool { return r.GetPrefixLen().GetValue() == 0 }
	return len(ranges) > 0 && !slices.ContainsFunc(ranges, everybody)
}

// carried: connections are those of a load balancer's clients, whom it names.
func carried(v visited) bool {
	l, _ := parent[*listenerv3.Listener](v)
	return slices.ContainsFunc(l.GetListenerFilters(), func(f *listenerv3.ListenerFilter) bool {
		return f.GetTypedConfig().MessageIs((*proxyprotocolv3.ProxyProtocol)(nil))
	})
}

// announced: who says for whom a connection is, is one of a load balancer's addresses, and
// nobody says so by leaving it out.
func (c *checker) announced(path string, m *listenerv3.Listener, chains []*listenerv3.FilterChain) {
	for _, f := range m.GetListenerFilters() {
		var p proxyprotocolv3.ProxyProtocol
		if !f.GetTypedConfig().MessageIs(&p) {
			continue
		}
		if f.GetTypedConfig().UnmarshalTo(&p) != nil || p.GetAllowRequestsWithoutProxyProtocol() || f.GetFilterDisabled() != nil {
			c.say(path, "listener %s: a connection may leave out for whom it is", m.GetName())
		}
		for _, chain := range chains {
			if !fromSomewhere(chain) {
				c.say(path, "listener %s, filter chain %q: anybody may say for whom a connection is", m.GetName(), chain.GetName())
			}
		}
	}
}
