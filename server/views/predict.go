package views

import (
	"fmt"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/xds"
	"signet.example/xds/effect"
	"signet.example/xds/predict"
)

// Predict is what a proxy of a virtual node does with a request of its application, or one
// of a gateway with a request that comes to a port of it, by the routes that it is to have now.
func (v *Views) Predict(of proxy.Ref, port uint32, r predict.Request) (predict.Outcome, error) {
	if of.Gateway() {
		r.Authority = withoutPort(r.Authority)
	}
	r.Headers = xds.Marked(r.Method, r.Headers)
	set, err := v.translate(v.source.Look().nodeInputs()).set(Key{of, anyShapeOf(of)})
	if err != nil {
		return predict.Outcome{}, fmt.Errorf("translate %s: %w", of, err)
	}
	var found []*routev3.RouteConfiguration
	var names []string
	for _, res := range set.Type(ads.RouteType) {
		rc, err := effect.Routes(res)
		if err != nil {
			return predict.Outcome{}, err
		}
		if strings.HasPrefix(res.Name, effect.IngressRoutes) != of.Gateway() || port != 0 && !strings.HasSuffix(res.Name, fmt.Sprintf("_%d", port)) {
			continue
		}
		found, names = append(found, rc), append(names, res.Name)
	}
	switch len(found) {
	case 1:
		return predict.Of(found[0], r)
	case 0:
		return predict.Outcome{}, fault.New(fault.NotFound, "%s %s has no routes for that", of.Kind.Words(), of.Name)
	}
	slices.Sort(names)
	return predict.Outcome{}, fault.New(fault.Invalid, "%s %s has several listeners, %s: name a port", of.Kind.Words(), of.Name, strings.Join(names, ", "))
}

// withoutPort is a host as a gateway's routes see it: its manager takes the port off, and a
// dot at the end (xds). In an address of IPv6 colons stand between brackets.
func withoutPort(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		authority = authority[:i]
	}
	return strings.TrimSuffix(authority, ".")
}
