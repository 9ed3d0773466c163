package admin

import (
	"context"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/server/fault"
)

// What a list of decisions has at most, and where nothing is said.
const mostDecisions, someDecisions = 500, 100

// Decisions lists what the connected agents keep of their decisions.
func (s *Server) Decisions(ctx context.Context, req *api.DecisionsListRequest) (*api.DecisionsListResponse, error) {
	f := proto.CloneOf(req.GetFilter())
	switch {
	case f == nil:
		f = &api.DecisionFilter{Limit: someDecisions}
	case f.GetLimit() == 0:
		f.Limit = someDecisions
	case f.GetLimit() < 0 || f.GetLimit() > mostDecisions:
		return nil, fault.New(fault.Invalid, "limit %d: must be 1 to %d", f.GetLimit(), mostDecisions)
	}
	out := &api.DecisionsListResponse{}
	out.Decisions, out.Silent = s.cfg.Sessions.Decisions(ctx, f)
	return out, nil
}
