package proxies

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/xds/effect"
	"signet.example/xds/predict"
)

// Effect is what effects come to, with the proxies that agents report: what many proxies do alike is one.
func (p Proxies) Effect(all []effect.Effect, leftOut int) (*api.Effect, error) {
	out := &api.Effect{LeftOut: uint32(leftOut)} //nolint:gosec // virtual hosts of a mesh
	served := servedBy(p.Agents())
	requests := map[string]*api.Effect_Request{}
	for _, e := range all {
		of := &api.VirtualNodeRef{Mesh: e.Of.Mesh, Name: e.Of.Name, Gateway: e.Of.Gateway()}
		n := &api.Effect_Node{Node: of, Proxies: served[e.Of], Authorization: e.Authorization}
		for _, some := range []struct {
			action string
			named  []effect.Named
		}{{"added", e.Added}, {"changed", e.Changed}, {"removed", e.Removed}} {
			for _, r := range some.named {
				n.Resources = append(n.Resources, &api.Effect_Resource{Action: some.action, Type: r.Type, Name: r.Name})
			}
		}
		out.Nodes = append(out.Nodes, n)
		for _, c := range e.Connections {
			out.Connections = append(out.Connections, &api.Effect_Connections{Node: of, Port: c.Port, Before: c.Before, After: c.After})
		}
		for _, by := range e.Requests {
			for _, d := range by.Differences {
				r := requestEffect(by.Routes, d)
				key, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
				if err != nil {
					return nil, fault.New(fault.Invalid, "what it does to requests cannot be told: %v", err)
				}
				known := requests[string(key)]
				if known == nil {
					known = r
					requests[string(key)] = r
					out.Requests = append(out.Requests, r)
				}
				known.From = append(known.From, of)
			}
		}
	}
	return out, nil
}

// servedBy names the proxies that connected agents report, by what they are of.
func servedBy(agents []fleet.Status) map[proxy.Ref][]string {
	of := map[proxy.Ref][]string{}
	for _, a := range agents {
		if a.State != api.AgentInfo_CONNECTED {
			continue
		}
		for _, p := range a.Report.GetProxies() {
			of[fleet.RefOf(p)] = append(of[fleet.RefOf(p)], p.GetName())
		}
	}
	return of
}

func requestEffect(routes string, d predict.Difference) *api.Effect_Request {
	r := &api.Effect_Request{
		Routes: routes, Method: d.Request.Method, Scheme: d.Request.Scheme, Authority: d.Request.Authority, Path: d.Request.Path,
		Before: outcome(d.Before), After: outcome(d.After), Reason: d.Why,
	}
	for _, name := range slices.Sorted(maps.Keys(d.Request.Headers)) {
		for _, value := range d.Request.Headers[name] {
			r.Headers = append(r.Headers, &api.RoutesRequest_Header{Name: name, Value: value})
		}
	}
	return r
}
