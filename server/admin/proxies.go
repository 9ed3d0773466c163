package admin

import (
	"context"
	"strings"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/kinds"
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
	resp, err := s.cfg.Proxies.Routes(of, req)
	if err != nil {
		return nil, err
	}
	if host, _, _ := strings.Cut(req.GetAuthority(), ":"); !of.Gateway() && resp.GetVirtualHost() != "" {
		resp.Address = addressOf(m, kinds.Key{Kind: string(mesh.KindVirtualService), Mesh: of.Mesh, Name: host})
	}
	return resp, nil
}

// caller is whose proxy is meant.
func caller(m Model, req *api.RoutesRequest) (proxy.Ref, error) {
	if err := thereIs(m, req.GetMesh()); err != nil {
		return proxy.Ref{}, err
	}
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
		return proxy.Ref{}, fault.New(fault.NotFound, "%s %q does not exist%s", kind, plain.Text(req.GetFrom()), others(m, kind, req.GetMesh()))
	case 1:
		return found[0], nil
	}
	return proxy.Ref{}, fault.New(fault.Invalid, "%s %q exists in meshes %s and %s: name one", kind, plain.Text(req.GetFrom()), found[0].Mesh, found[1].Mesh)
}

// ProxyConfig lists what proxies are to have, and what each has acknowledged.
func (s *Server) ProxyConfig(ctx context.Context, req *api.ProxyConfigRequest) (*api.ProxyConfigResponse, error) {
	m, err := s.cfg.Stored.Newest(ctx)
	if err != nil {
		return nil, err
	}
	return s.cfg.Proxies.Configs(m.Graph(), req)
}
