package admin

import (
	"context"

	"signet.example/api"
)

// DraftPolicy writes Rego for what meshes declare, or for what agents have let through.
func (s *Server) DraftPolicy(ctx context.Context, req *api.DraftPolicyRequest) (*api.DraftPolicyResponse, error) {
	m, err := s.cfg.Stored.Newest(ctx)
	if err != nil {
		return nil, err
	}
	if err := thereIs(m, req.GetMesh()); err != nil {
		return nil, err
	}
	return s.cfg.Drafts.Policy(ctx, m.Graph(), req)
}
