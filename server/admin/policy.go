package admin

import (
	"context"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/policy"
	"signet.example/policy/repo"
	"signet.example/server/fault"
	"signet.example/server/kinds"
)

// Policies is what is decided by.
type Policies interface {
	// Sync reads one source by hand, and returns what came of it.
	Sync(ctx context.Context, src repo.Source) (*api.PolicyStatus, error)
	// Renewed returns when the revision in force is of all that is stored.
	Renewed(ctx context.Context) error
	// InForce is that revision, and the one that routes are stamped with, which agents decide by: the same
	// one when they have loaded it.
	InForce() (newest, stamp string)
	// PackagesInForce are the virtual nodes' packages of the policy that is served.
	PackagesInForce() []policy.Package
}

// SyncPolicy fetches now.
func (s *Server) SyncPolicy(ctx context.Context, req *api.SyncPolicyRequest) (*api.SyncPolicyResponse, error) {
	m, err := s.cfg.Stored.Newest(ctx)
	if err != nil {
		return nil, err
	}
	resp := &api.SyncPolicyResponse{}
	for _, o := range kinds.Of(m.Objects(), kinds.PolicySource) {
		src := o.Value.(repo.Source)
		if req.GetSource() == "" || req.GetSource() == src.Name {
			st, err := s.cfg.Policies.Sync(ctx, src)
			if err != nil {
				return nil, err
			}
			resp.Statuses = append(resp.Statuses, st)
		}
	}
	if req.GetSource() != "" && len(resp.GetStatuses()) == 0 {
		return nil, fault.New(fault.NotFound, "PolicySource %q does not exist", plain.Text(req.GetSource()))
	}
	return resp, nil
}
