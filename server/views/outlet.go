package views

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/xds/effect"
	"signet.example/xds/predict"
)

// Outlet is where the application of a virtual node connects to speak to a service on a
// port of protocol tcp, and where that leads; nil where that is none.
func (v *Views) Outlet(of proxy.Ref, service string, port uint32) (*predict.Outlet, error) {
	any := anyShapeOf(of)
	if any.Alone {
		return nil, nil //nolint:nilnil // a gateway speaks HTTP alone
	}
	set, err := v.translate(v.source.Look().nodeInputs()).set(Key{of, any})
	if err != nil {
		return nil, fmt.Errorf("translate %s: %w", of, err)
	}
	l := outletOf(set, any, service, port)
	if l == nil {
		return nil, nil //nolint:nilnil // as said
	}
	out := &predict.Outlet{}
	var m tcpv3.TcpProxy
	filters := l.GetFilterChains()[0].GetFilters()
	if err := filters[len(filters)-1].GetTypedConfig().UnmarshalTo(&m); err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", l.GetName(), err)
	}
	if c := m.GetCluster(); c != "" {
		out.Targets = append(out.Targets, predict.Share{Cluster: c, Weight: 1})
	}
	for _, w := range m.GetWeightedClusters().GetClusters() {
		out.Targets = append(out.Targets, predict.Share{Cluster: w.GetName(), Weight: w.GetWeight()})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for key := range v.shapes[of] {
		if l := outletOf(v.nodes[key].view.Set(), key.Shape, service, port); l != nil {
			out.Places = append(out.Places, predict.Place{Beside: key.Shape.Egress.String(), At: placeOf(l)})
		}
	}
	slices.SortFunc(out.Places, predict.Place.Compare)
	out.Places = slices.Compact(out.Places)
	return out, nil
}

// Ports are those at which the proxy of a virtual node has a host, for requests and for
// connections of tcp.
func (v *Views) Ports(of proxy.Ref, host string) (requests, connections []uint32, err error) {
	any := anyShapeOf(of)
	set, err := v.translate(v.source.Look().nodeInputs()).set(Key{of, any})
	if err != nil {
		return nil, nil, fmt.Errorf("translate %s: %w", of, err)
	}
	for _, r := range set.Type(ads.RouteType) {
		rc, err := effect.Routes(r)
		if err != nil {
			return nil, nil, err
		}
		if !strings.HasPrefix(r.Name, effect.IngressRoutes) {
			requests = append(requests, predict.Ports(rc, host)...)
		}
	}
	for _, r := range set.Type(ads.ListenerType) {
		port, err := strconv.ParseUint(r.Name[strings.LastIndexByte(r.Name, '_')+1:], 10, 16)
		if err == nil && outletOf(set, any, host, uint32(port)) != nil {
			connections = append(connections, uint32(port))
		}
	}
	slices.Sort(connections)
	return requests, slices.Compact(connections), nil
}

// mostTries is how many places are looked at: so many services that share one are not met.
const mostTries = 4

func outletOf(set *ads.Set, sh proxy.Shape, service string, port uint32) *listenerv3.Listener {
	for tries := range mostTries {
		var l listenerv3.Listener
		if r := set.Get(ads.ListenerType, sh.Egress.TCP(service, port, tries).Listener()); r != nil && proto.Unmarshal(r.Body, &l) == nil {
			return &l
		}
	}
	return nil
}

// placeOf is the address of a listener as people write it.
func placeOf(l *listenerv3.Listener) string {
	if p := l.GetAddress().GetPipe(); p != nil {
		return proxy.UnixPrefix + p.GetPath()
	}
	a := l.GetAddress().GetSocketAddress()
	return fmt.Sprintf("%s:%d", a.GetAddress(), a.GetPortValue())
}
