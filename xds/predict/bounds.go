package predict

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// Bounds are what a callee's own proxy lets its application have at a time, whatever the caller's
// route says. What is 0 has none.
type Bounds struct {
	Timeout                        time.Duration // 504 after it
	Connections, Pending, Requests uint32        // 503 beyond the latter two
}

// BoundsOf are those of an inbound listener, by its routes and by the cluster of its
// application. Connections of tcp have no routes: nil.
func BoundsOf(rc *routev3.RouteConfiguration, application *clusterv3.Cluster) Bounds {
	var b Bounds
	for _, h := range rc.GetVirtualHosts() { // there is one, of one route
		for _, r := range h.GetRoutes() {
			b.Timeout = r.GetRoute().GetTimeout().AsDuration()
		}
	}
	for _, t := range application.GetCircuitBreakers().GetThresholds() {
		b.Connections, b.Pending, b.Requests = bound(t.GetMaxConnections().GetValue()), bound(t.GetMaxPendingRequests().GetValue()), bound(t.GetMaxRequests().GetValue())
	}
	return b
}

// bound is 0 for the number that stands for none.
func bound(n uint32) uint32 {
	if n == math.MaxInt32 {
		return 0
	}
	return n
}

// Ports are those at which a configuration has routes for the host of an authority, in order.
func Ports(rc *routev3.RouteConfiguration, authority string) (list []uint32) {
	host, _, _ := strings.Cut(strings.ToLower(authority), ":")
	for _, h := range rc.GetVirtualHosts() {
		if len(h.GetRoutes()) == 0 { // it has connections of tcp alone
			continue
		}
		for _, d := range h.GetDomains() {
			name, port, _ := strings.Cut(d, ":")
			if n, err := strconv.ParseUint(port, 10, 16); err == nil && name == host {
				list = append(list, uint32(n))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
