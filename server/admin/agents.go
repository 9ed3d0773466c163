package admin

import (
	"context"
	"strings"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/fleet"
)

// kindAgent is how operators name agents where they name a kind. Agents are not
// applied: they join.
const kindAgent = "Agent"

// Fleet is who there is.
type Fleet interface {
	// All is what is known of each agent that joined, by id.
	All() []fleet.Status
	Get(id string) (fleet.Status, bool)
	// Follow takes what is stored of agents: when it returns, one that must no longer be
	// served has no stream, and nobody is sent to its proxies.
	Follow(ctx context.Context) error
	// Forget lets go of an agent that was deleted.
	Forget(id string)
}

// AgentRows is where agents are kept. What is written is durable on return.
type AgentRows interface {
	banRows
	DeleteAgent(ctx context.Context, actor, id string) error
	Revision() uint64
}

// Agents lists who joined, with the latest report of each.
func (s *Server) Agents(context.Context, *api.AgentsRequest) (*api.AgentsResponse, error) {
	resp := &api.AgentsResponse{}
	for _, st := range s.cfg.Fleet.All() {
		resp.Agents = append(resp.Agents, st.Message())
	}
	return resp, nil
}

// deleteAgent forgets an agent that is gone for good.
func (s *Server) deleteAgent(ctx context.Context, req *api.DeleteRequest) (*api.ApplyResponse, error) {
	actor, err := actorOf(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.agentNamed(req.GetName()); err != nil {
		return nil, err
	}
	if err := s.cfg.Certificates.CaughtUp(ctx); err != nil { // a certificate that is not seen may be good
		return nil, err
	}
	st, err := s.agentNamed(req.GetName()) // by all of its certificates
	if err != nil {
		return nil, err
	}
	id := st.Agent.ID
	switch st.State {
	case api.AgentInfo_GONE:
	case api.AgentInfo_BANNED:
		return nil, fault.New(fault.Referenced, "agent %s is not deleted: it is banned, and is kept so that its host key stays out", id)
	default:
		return nil, fault.New(fault.Referenced, "agent %s is not deleted: it is %s, and its certificate is good until %s; to shut it out now: signet ban %s",
			id, api.Word(st.State), plain.UTC(st.End), id)
	}
	resp := &api.ApplyResponse{Revision: s.cfg.AgentRows.Revision(), Changes: []*api.Change{{Action: api.Change_DELETED.Enum(), Kind: kindAgent, Name: id}}}
	if req.GetDryRun() {
		return resp, nil
	}
	if err := s.cfg.AgentRows.DeleteAgent(ctx, actor, id); err != nil {
		return nil, err
	}
	resp.Revision = s.cfg.AgentRows.Revision()
	err = s.cfg.Fleet.Follow(ctx) // before it is forgotten: a session that it has by now ends
	s.cfg.Fleet.Forget(id)
	return resp, err
}

func (s *Server) agentNamed(id string) (fleet.Status, error) {
	st, ok := s.cfg.Fleet.Get(id)
	if !ok {
		return st, fault.New(fault.NotFound, "agent %q does not exist; `signet get agents` lists them", plain.Text(id))
	}
	return st, nil
}

// isAgentKind reports whether a kind is the agents, which are no stored objects.
func isAgentKind(kind string) bool {
	return strings.EqualFold(kind, kindAgent) || strings.EqualFold(kind, kindAgent+"s")
}
