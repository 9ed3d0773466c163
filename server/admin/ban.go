package admin

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/plain"
)

// banRows is where bans are kept (AgentRows).
type banRows interface {
	// BanAgent is for good. With another reason it changes the one that is kept.
	BanAgent(ctx context.Context, actor, id, reason string) error
}

// BanAgent shuts an agent out. When it returns, the agent has no stream, gets no
// certificate, and nobody is sent to its proxies; the other agents are told next.
func (s *Server) BanAgent(ctx context.Context, req *api.BanAgentRequest) (*api.BanAgentResponse, error) {
	actor, err := actorOf(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.agentNamed(req.GetAgent())
	if err != nil {
		return nil, err
	}
	agent := st.Agent
	// Of one that is banned the reason is added or changed.
	if why := plain.Text(req.GetReason()); !req.GetDryRun() && (!agent.Banned || why != "" && why != agent.BanReason) {
		if err := s.cfg.AgentRows.BanAgent(ctx, actor, agent.ID, why); err != nil {
			return nil, err
		}
		if err := s.cfg.Fleet.Follow(ctx); err != nil {
			return nil, err
		}
	}
	// What it holds is counted after the ban: nothing waits for the signer before
	// the agent is out, and nothing is issued to it that would not be counted.
	return s.holdings(ctx, st.SPIFFE, &api.BanAgentResponse{Changed: !agent.Banned}), nil
}

// logWait is how long the answer to a ban waits for the issuance log. A signer
// that answers is behind by milliseconds.
const logWait = 2 * time.Second

// holdings completes the answer to a ban with the certificates that the agent has.
func (s *Server) holdings(ctx context.Context, spiffeID string, resp *api.BanAgentResponse) *api.BanAgentResponse {
	ctx, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	if err := s.cfg.Certificates.CaughtUp(ctx); err != nil {
		resp.Unread = plain.Text(err.Error())
	}
	if n, last := s.cfg.Certificates.HeldBy(spiffeID); n > 0 {
		resp.Certificates, resp.NotAfter = n, timestamppb.New(last)
	}
	return resp
}
