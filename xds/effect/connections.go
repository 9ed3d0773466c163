package effect

import (
	"fmt"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
)

const tcpFilter = "envoy.filters.network.tcp_proxy"

// connections adds a listener of protocol tcp to which not the same may connect.
func (e *Effect) connections(before, after *ads.Resource) error {
	was, err := listenerIn(before)
	if err != nil {
		return err
	}
	is, err := listenerIn(after)
	if err != nil {
		return err
	}
	c := Connections{Port: max(portOf(was), portOf(is))} // of one name, and so the same
	if c.Before, err = callersOf(was); err != nil {
		return err
	}
	if c.After, err = callersOf(is); err != nil {
		return err
	}
	if !slices.Equal(c.Before, c.After) {
		e.Connections = append(e.Connections, c)
	}
	return nil
}

// listenerIn returns the listener of a resource, an empty one of nil.
func listenerIn(r *ads.Resource) (*listenerv3.Listener, error) {
	l := &listenerv3.Listener{}
	if r == nil {
		return l, nil
	}
	if err := proto.Unmarshal(r.Body, l); err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", r.Name, err)
	}
	return l, nil
}

func portOf(l *listenerv3.Listener) uint32 { return l.GetAddress().GetSocketAddress().GetPortValue() }

// callersOf is who may connect to a listener of connections: nobody by one of requests, to which
// whoever may not call is answered.
func callersOf(l *listenerv3.Listener) (list []string, err error) {
	for _, chain := range l.GetFilterChains() {
		if !slices.ContainsFunc(chain.GetFilters(), func(f *listenerv3.Filter) bool { return f.GetName() == tcpFilter }) {
			continue
		}
		if chain.GetTransportSocket() == nil {
			list = append(list, "anyone in plaintext")
			continue
		}
		var tls tlsv3.DownstreamTlsContext
		if err := chain.GetTransportSocket().GetTypedConfig().UnmarshalTo(&tls); err != nil {
			return nil, fmt.Errorf("internal error: %s: %w", l.GetName(), err)
		}
		list = append(list, namesIn(&tls)...)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// namesIn is whose certificates a handshake takes.
func namesIn(c *tlsv3.DownstreamTlsContext) (list []string) {
	if !c.GetRequireClientCertificate().GetValue() {
		return []string{"anyone by TLS"}
	}
	trust := c.GetCommonTlsContext().GetCombinedValidationContext()
	for _, m := range trust.GetDefaultValidationContext().GetMatchTypedSubjectAltNames() {
		switch p := m.GetMatcher().GetMatchPattern().(type) {
		case *matcherv3.StringMatcher_Exact:
			list = append(list, p.Exact)
		case *matcherv3.StringMatcher_Prefix:
			list = append(list, p.Prefix+"*")
		default:
			list = append(list, m.GetMatcher().String())
		}
	}
	if list == nil {
		list = []string{"whoever " + trust.GetValidationContextSdsSecretConfig().GetName() + " vouches for"}
	}
	return list
}
