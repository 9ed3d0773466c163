package proxies

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/xds/predict"
)

// Routes predicts what a proxy does with a request.
func (p Proxies) Routes(of proxy.Ref, req *api.RoutesRequest) (*api.RoutesResponse, error) {
	if host, port, ok := strings.Cut(req.GetAuthority(), ":"); ok {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			out, err := p.Routing.Outlet(of, host, uint32(n))
			if err != nil {
				return nil, err
			}
			if out != nil {
				return p.beyond(of, req, connections(req.GetAuthority(), out))
			}
		}
	}
	r := predict.Request{Method: req.GetMethod(), Scheme: "http", Authority: req.GetAuthority(), Path: req.GetPath(), Headers: map[string][]string{}}
	if err := normalised(r.Path); err != nil {
		return nil, err
	}
	for _, h := range req.GetHeaders() {
		name := strings.ToLower(h.GetName())
		r.Headers[name] = append(r.Headers[name], h.GetValue())
	}
	out, err := p.Routing.Predict(of, req.GetPort(), r)
	if err != nil {
		return nil, err
	}
	return p.beyond(of, req, outcome(out))
}

// beyond adds what is not in the caller's routes: what the callees' own proxies bound, and, where
// no route takes it, at which ports the host is.
func (p Proxies) beyond(of proxy.Ref, req *api.RoutesRequest, resp *api.RoutesResponse) (*api.RoutesResponse, error) {
	for _, t := range resp.GetTargets() {
		b, err := p.Routing.Bounds(of.Mesh, t.GetCluster())
		if err != nil {
			return nil, err
		}
		if b != nil {
			t.Own = &api.RoutesResponse_Bounds{Timeout: durationpb.New(b.Timeout), Connections: b.Connections, Pending: b.Pending, Requests: b.Requests}
		}
	}
	if resp.GetRoute() != "" || resp.GetConnections() || of.Gateway() {
		return resp, nil
	}
	host, _, _ := strings.Cut(strings.ToLower(req.GetAuthority()), ":")
	var err error
	resp.Ports, resp.TcpPorts, err = p.Routing.Ports(of, host)
	return resp, err
}

func connections(service string, out *predict.Outlet) *api.RoutesResponse {
	resp := &api.RoutesResponse{VirtualHost: service, Connections: true}
	for _, t := range out.Targets {
		resp.Targets = append(resp.Targets, &api.RoutesResponse_Target{Cluster: t.Cluster, Weight: t.Weight})
	}
	for _, p := range out.Places {
		resp.Places = append(resp.Places, &api.RoutesResponse_Place{Beside: p.Beside, At: p.At})
	}
	return resp
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
