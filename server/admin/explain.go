package admin

import (
	"context"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/fault"
)

// Check looks at everything once and tells what is wrong, why, and the command
// that fixes it.
func (s *Server) Check(ctx context.Context, _ *api.CheckRequest) (*api.CheckResponse, error) {
	return &api.CheckResponse{Findings: s.cfg.Findings(ctx)}, nil
}

// Explain looks a decision up on every connected agent.
func (s *Server) Explain(ctx context.Context, req *api.ExplainRequest) (*api.ExplainResponse, error) {
	id, ok := proxy.ParseDecisionID(req.GetId())
	if !ok {
		return nil, fault.New(fault.Invalid, "%q is not a decision id: 32 hex digits, as in the header "+proxy.HeaderDecisionID, plain.Text(req.GetId()))
	}
	d, err := s.cfg.Sessions.Explain(ctx, id)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, fault.New(fault.NotFound, "none of the %d connected agents has decision %s: agents keep a bounded number of them, and lose them when they end", s.connected(), id)
	}
	return &api.ExplainResponse{Decision: d}, nil
}

// connected is how many agents are connected.
func (s *Server) connected() (n int) {
	for _, st := range s.cfg.Fleet.All() {
		if st.Connected() {
			n++
		}
	}
	return n
}
