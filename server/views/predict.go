package views

import (
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

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
		r.Authority = predict.WithoutPort(r.Authority)
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

// Bounds are those of the proxy of the virtual node that a cluster leads to, by what it is to
// have; nil where that is no proxy of ours.
func (v *Views) Bounds(mesh, cluster string) (*predict.Bounds, error) {
	in := v.source.Look().nodeInputs()
	for _, n := range in.model.Graph().Nodes(mesh) {
		for _, l := range n.Listeners {
			of := fmt.Sprintf("%s_%s_%s_%d", n.Mesh, n.Name, l.Protocol, l.Port)
			via, ok := strings.CutPrefix(cluster, "cds_egress_"+of)
			if !ok || via != "" && !strings.HasPrefix(via, "_via_") || !in.model.Managed(n.Ref) {
				continue
			}
			set, err := v.translate(in).set(Key{n.Ref, anyShapeOf(n.Ref)})
			if err != nil {
				return nil, fmt.Errorf("translate %s: %w", n.Ref, err)
			}
			rc, err := effect.Routes(set.Get(ads.RouteType, fmt.Sprintf("%s%s_%d", effect.IngressRoutes, l.Protocol, l.Port)))
			if err != nil {
				return nil, err
			}
			var c clusterv3.Cluster
			if r := set.Get(ads.ClusterType, "cds_ingress_"+of); r == nil || proto.Unmarshal(r.Body, &c) != nil {
				return nil, fmt.Errorf("internal error: %s has no cluster of its application", n.Ref)
			}
			b := predict.BoundsOf(rc, &c)
			return &b, nil
		}
	}
	return nil, nil //nolint:nilnil // as said
}
