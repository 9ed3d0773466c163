package xds

import (
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/proxy"
)

// connectionLimitFilter closes what is more than may be open at a listener.
const connectionLimitFilter = "envoy.filters.network.connection_limit"

// Listeners of the application's calls other than the way out share the proxy's bound of
// connections with its ways in, since Envoy bounds a listener by itself only by a name that its
// bootstrap has. So each has a share of it, and a quarter is for nobody but the ways in
// (docs/decisions/108).

// ofItsShare closes connections at a listener beyond its share, before anybody is asked about them.
// Its statistics have the listener as a label, which ends at a dot.
func (b *builder) ofItsShare(listener string) *listenerv3.Filter {
	return &listenerv3.Filter{Name: connectionLimitFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(&limitv3.ConnectionLimit{
		StatPrefix: strings.ReplaceAll(listener, ".", "_"), MaxConnections: wrapperspb.UInt64(b.share),
	})}}
}

const (
	// fewListeners are those whose shares are of one size, however few there are.
	fewListeners = 8
	// fewConnections a listener has, also beside many.
	fewConnections = 64
)

// shareOf is how many connections each of some listeners has of those of the ways in. It changes
// where their number passes a power of two, and with it go the connections that are open there.
func shareOf(connections uint32, listeners int) uint64 {
	parts := fewListeners
	for parts < listeners {
		parts *= 2
	}
	all := uint64(connections) / 4 * 3
	return max(all/uint64(parts), min(fewConnections, all/fewListeners), 1)
}

// sharing counts the listeners of the application's calls beside the way out.
func (b *builder) sharing(out []outward) int {
	n := len(out)
	if !b.shape.ServiceAddresses {
		return n
	}
	for _, s := range b.plainFirst() {
		if !b.read.addressOf(s.service.GraphName()).IsValid() {
			continue
		}
		n += len(portsOf(s))
		for _, p := range tcpPortsOf(s) {
			if wayOutOf(out, s, p) >= 0 {
				n++
			}
		}
	}
	return n
}

// wayOutOf is which of the ways out is that of a backend's port; -1 where nothing answers there.
func wayOutOf(out []outward, s backend, p uint32) int {
	name := strings.ToLower(s.service.Name)
	return slices.IndexFunc(out, func(o outward) bool { return o.service == name && o.port == p })
}

// connectionsOf is how many connections the ways in of a proxy take.
func connectionsOf(s proxy.Shape) uint32 {
	if s.Connections != 0 {
		return s.Connections
	}
	return proxy.DefaultConnections
}
