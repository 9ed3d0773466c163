package proxies

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/api"
	"signet.example/xds/predict"
)

// outcome is what becomes of a request, as operators are shown it.
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
	resp.Retries = retries(out.Retry)
	resp.HostRewrite, resp.PathRewrite = a.GetHostRewriteLiteral(), pathRewrite(out.Route.GetMatch(), a)
	return resp
}

// retries is nil where a request is sent once.
func retries(p *routev3.RetryPolicy) *api.RoutesResponse_Retries {
	if p == nil {
		return nil
	}
	return &api.RoutesResponse_Retries{
		Most: p.GetNumRetries().GetValue(), On: strings.Split(p.GetRetryOn(), ","), Statuses: p.GetRetriableStatusCodes(), PerTry: p.GetPerTryTimeout(),
	}
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
