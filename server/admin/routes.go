package admin

import (
	"context"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/api"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/xds/predict"
)

// Routes predicts what becomes of a request.
func (s *Server) Routes(ctx context.Context, req *api.RoutesRequest) (*api.RoutesResponse, error) {
	m, err := s.cfg.Stored.Newest(ctx)
	if err != nil {
		return nil, err
	}
	of, err := caller(m, req)
	if err != nil {
		return nil, err
	}
	r := predict.Request{Method: req.GetMethod(), Scheme: "http", Authority: req.GetAuthority(), Path: req.GetPath(), Headers: map[string][]string{}}
	if err := normalised(r.Path); err != nil {
		return nil, err
	}
	for _, h := range req.GetHeaders() {
		name := strings.ToLower(h.GetName())
		r.Headers[name] = append(r.Headers[name], h.GetValue())
	}
	out, err := s.cfg.Routing.Predict(of, req.GetPort(), r)
	if err != nil {
		return nil, err
	}
	return outcome(out), nil
}

// caller is whose proxy is meant.
func caller(m Model, req *api.RoutesRequest) (proxy.Ref, error) {
	var found []proxy.Ref
	for _, name := range m.Graph().Meshes() {
		of := proxy.For(name, req.GetFrom(), req.GetGateway())
		if (req.GetMesh() == "" || req.GetMesh() == name) && m.Graph().Node(of) != nil {
			found = append(found, of)
		}
	}
	kind := "VirtualNode"
	if req.GetGateway() {
		kind = "VirtualGateway"
	}
	switch len(found) {
	case 0:
		return proxy.Ref{}, fault.New(fault.NotFound, "%s %q does not exist%s", kind, plain.Text(req.GetFrom()), others(m, kind))
	case 1:
		return found[0], nil
	}
	return proxy.Ref{}, fault.New(fault.Invalid, "%s %q exists in meshes %s and %s: name one", kind, plain.Text(req.GetFrom()), found[0].Mesh, found[1].Mesh)
}

// normalised refuses a path that the proxy writes anew, or refuses, before it looks for a
// route (D20).
func normalised(p string) error {
	p, _, _ = strings.Cut(p, "?")
	if manifest.CheckText("path", p) != "" || strings.ContainsAny(p, `%\;`) {
		return fault.New(fault.Invalid, "the path %q is written anew or refused before it is routed: give it as it is then, with one slash at its beginning and between segments, and nothing escaped", plain.Text(p))
	}
	return nil
}

func outcome(out predict.Outcome) *api.RoutesResponse {
	resp := &api.RoutesResponse{VirtualHost: out.VirtualHost}
	listed := map[string]bool{out.Route.GetName(): true}
	for _, p := range out.Passed { // App Mesh's routes: of each there may be several of Envoy's
		if !listed[p.Route] {
			listed[p.Route] = true
			resp.Passed = append(resp.Passed, &api.RoutesResponse_Passed{Route: p.Route, Why: out.WhyNot(p.Route)})
		}
	}
	if out.Route == nil {
		resp.Status = 404
		return resp
	}
	resp.Route = out.Route.GetName()
	if d := out.Route.GetDirectResponse(); d != nil {
		resp.Status = d.GetStatus()
		return resp
	}
	a := out.Route.GetRoute()
	if c := a.GetCluster(); c != "" {
		resp.Targets = append(resp.Targets, &api.RoutesResponse_Target{Cluster: c, Weight: 1})
	}
	for _, w := range a.GetWeightedClusters().GetClusters() {
		resp.Targets = append(resp.Targets, &api.RoutesResponse_Target{Cluster: w.GetName(), Weight: w.GetWeight().GetValue()})
	}
	if t := a.GetTimeout(); t.AsDuration() > 0 {
		resp.Timeout = t
	}
	resp.HostRewrite, resp.PathRewrite = a.GetHostRewriteLiteral(), pathRewrite(out.Route.GetMatch(), a)
	return resp
}

// pathRewrite is in words what becomes of the path.
func pathRewrite(m *routev3.RouteMatch, a *routev3.RouteAction) string {
	switch {
	case a.GetPrefixRewrite() != "" && m.GetPath() == "" && m.GetSafeRegex() == nil:
		return m.GetPrefix() + " at its beginning becomes " + a.GetPrefixRewrite()
	case a.GetPrefixRewrite() != "":
		return a.GetPrefixRewrite()
	case a.GetRegexRewrite() != nil:
		return a.GetRegexRewrite().GetPattern().GetRegex() + " becomes " + a.GetRegexRewrite().GetSubstitution()
	}
	return ""
}
