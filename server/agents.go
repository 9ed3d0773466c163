package server

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/store"
)

// kindAgent is how operators name agents where they name a kind. Agents are not
// applied: they join.
const kindAgent = "Agent"

// Agents lists who joined, with the latest report of each.
func (a *admin) Agents(context.Context, *api.AgentsRequest) (*api.AgentsResponse, error) {
	resp := &api.AgentsResponse{}
	for _, st := range a.statuses.All() {
		resp.Agents = append(resp.Agents, st.Message())
	}
	return resp, nil
}

// BanAgent shuts an agent out. When it returns, the agent has no stream, gets no
// certificate, and nobody is sent to its proxies; the other agents are told next.
func (a *admin) BanAgent(ctx context.Context, req *api.BanAgentRequest) (*api.BanAgentResponse, error) {
	actor, err := actorOf(ctx)
	if err != nil {
		return nil, err
	}
	g, err := a.agentNamed(req.GetAgent())
	if err != nil {
		return nil, err
	}
	// Of one that is banned the reason is added or changed.
	if why := plain.Text(req.GetReason()); !req.GetDryRun() && (!g.Banned || why != "" && why != g.BanReason) {
		if err := a.ban(ctx, actor, g.ID, why); err != nil {
			return nil, err
		}
	}
	// What it holds is counted after the ban: nothing waits for the signer before
	// the agent is out, and nothing is issued to it that would not be counted.
	return a.holdings(ctx, g.ID, &api.BanAgentResponse{Changed: !g.Banned}), nil
}

func (a *admin) ban(ctx context.Context, actor, id, why string) error {
	if err := a.store.BanAgent(ctx, actor, id, why); err != nil {
		return err
	}
	if err := a.reloadRoster(ctx); err != nil {
		return err
	}
	a.access.follow(a.model())
	return nil
}

// logWait is how long the answer to a ban waits for the issuance log. A signer
// that answers is behind by milliseconds.
const logWait = 2 * time.Second

// holdings completes the answer to a ban with the certificates that the agent has.
func (a *admin) holdings(ctx context.Context, id string, resp *api.BanAgentResponse) *api.BanAgentResponse {
	ctx, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	if err := a.issued.CaughtUp(ctx); err != nil {
		resp.Unread = plain.Text(err.Error())
	}
	if held, last := a.issued.HeldBy(fleet.IDOf(a.td, id)); held > 0 {
		resp.Certificates, resp.NotAfter = held, timestamppb.New(last)
	}
	return resp
}

// deleteAgent forgets an agent that is gone for good.
func (a *admin) deleteAgent(ctx context.Context, req *api.DeleteRequest) (*api.ApplyResponse, error) {
	actor, err := actorOf(ctx)
	if err != nil {
		return nil, err
	}
	g, err := a.agentNamed(req.GetName())
	if err != nil {
		return nil, err
	}
	if err := a.issued.CaughtUp(ctx); err != nil { // a certificate that is not seen may be good
		return nil, err
	}
	switch st := a.statuses.Of(g); st.State {
	case api.AgentInfo_GONE:
	case api.AgentInfo_BANNED:
		return nil, fault.New(fault.Referenced, "agent %s is not deleted: it is banned, and is kept so that its host key stays out", g.ID)
	default:
		return nil, fault.New(fault.Referenced, "agent %s is not deleted: it is %s, and its certificate is good until %s; to shut it out now: signet ban %s",
			g.ID, api.Word(st.State), plain.UTC(st.End), g.ID)
	}
	resp := &api.ApplyResponse{Revision: a.store.Revision(), Changes: []*api.Change{{Action: api.Change_DELETED.Enum(), Kind: kindAgent, Name: g.ID}}}
	if req.GetDryRun() {
		return resp, nil
	}
	if err := a.store.DeleteAgent(ctx, actor, g.ID); err != nil {
		return nil, err
	}
	resp.Revision = a.store.Revision()
	a.sessions.Drop(g.ID)
	a.instances.Forget(g.ID)
	return resp, a.reloadRoster(ctx)
}

func (a *admin) agentNamed(id string) (store.Agent, error) {
	g, ok := a.roster.Get(id)
	if !ok {
		return g, fault.New(fault.NotFound, "agent %q does not exist; `signet get agents` lists them", plain.Text(id))
	}
	return g, nil
}

// isAgentKind reports whether a kind is the agents, which are no stored objects.
func isAgentKind(kind string) bool {
	return strings.EqualFold(kind, kindAgent) || strings.EqualFold(kind, kindAgent+"s")
}
