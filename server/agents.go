package server

import (
	"cmp"
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/store"
)

// agentStates are the states of an agent, in the order in which they are counted.
var agentStates = []api.AgentInfo_State{api.AgentInfo_CONNECTED, api.AgentInfo_JOINED, api.AgentInfo_AWAY, api.AgentInfo_GONE, api.AgentInfo_BANNED}

// kindAgent is how operators name agents where they name a kind. Agents are not
// applied: they join.
const kindAgent = "Agent"

func words[E protoreflect.Enum](list []E) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = api.Word(e)
	}
	return out
}

// agentStatus is what is known of an agent at one moment.
type agentStatus struct {
	store.Agent
	state    api.AgentInfo_State
	unserved map[string]string // why no caller is sent to a proxy, by its name
	session  *fleet.Session    // nil unless it is connected
	report   *api.Report       // the latest, nil if there was none
	seen     time.Time
	left     time.Time // when its last session ended, zero if that was not seen
	end      time.Time // of its own newest certificate
}

func (s *server) agentStatus(g store.Agent) agentStatus {
	now := s.clock()
	session, left := s.sessions.Of(g.ID)
	cert := s.issued.NewestOf(s.agentSPIFFE(g.ID))
	st := agentStatus{
		Agent: g, session: session, report: left.Report, seen: later(later(g.Joined, cert.Issued), left.At), left: left.At,
		// The log may have no certificate of it: not read so far, or never issued.
		end: cmp.Or(cert.End, g.Joined.Add(s.cfg.Lifetimes.Agent)),
	}
	if session != nil {
		st.report, st.seen = session.Latest(), now
		st.unserved = s.endpoints.Unserved(g.ID)
	}
	switch {
	case g.Banned:
		st.state = api.AgentInfo_BANNED
	case session != nil:
		st.state = api.AgentInfo_CONNECTED
	case !st.end.After(now):
		st.state = api.AgentInfo_GONE
	case left.At.IsZero() && !cert.Renewed && g.Joined.After(s.started): // before, nobody saw whether it came
		st.state = api.AgentInfo_JOINED
	default:
		st.state = api.AgentInfo_AWAY
	}
	return st
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (st agentStatus) message() *api.AgentInfo {
	info := &api.AgentInfo{
		Id: st.ID, Group: st.Group, Hostname: st.Hostname, Connected: st.session != nil,
		Joined: timestamppb.New(st.Joined), Report: st.report, State: st.state.Enum(),
		LastSeen: timestamppb.New(st.seen), NotAfter: timestamppb.New(st.end),
		Attestation: st.Method, Selectors: st.Selectors,
		BanReason: st.BanReason,
	}
	if len(st.unserved) > 0 {
		info.Report = withUnserved(st.report, st.unserved)
	}
	if st.session != nil {
		info.Address = st.session.Peer().Remote.String()
	}
	return info
}

// withUnserved is a report in which a proxy that runs, and to which no caller is
// sent, is not told to be ready.
func withUnserved(r *api.Report, reasons map[string]string) *api.Report {
	r, _ = proto.Clone(r).(*api.Report) // Clone returns what it was given
	for _, p := range r.GetProxies() {
		if reason, ok := reasons[p.GetName()]; ok && p.GetState() == api.ProxyStatus_READY {
			p.State, p.Reason = api.ProxyStatus_UNSERVED.Enum(), reason
		}
	}
	return r
}

// Agents lists who joined, with the latest report of each.
func (a *admin) Agents(context.Context, *api.AgentsRequest) (*api.AgentsResponse, error) {
	resp := &api.AgentsResponse{}
	for _, g := range a.roster.All() {
		resp.Agents = append(resp.Agents, a.agentStatus(g).message())
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
	if held, last := a.issued.HeldBy(a.agentSPIFFE(id)); held > 0 {
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
	switch st := a.agentStatus(g); st.state {
	case api.AgentInfo_GONE:
	case api.AgentInfo_BANNED:
		return nil, fault.New(fault.Referenced, "agent %s is not deleted: it is banned, and is kept so that its host key stays out", g.ID)
	default:
		return nil, fault.New(fault.Referenced, "agent %s is not deleted: it is %s, and its certificate is good until %s; to shut it out now: signet ban %s",
			g.ID, api.Word(st.state), utc(st.end), g.ID)
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

// agentSPIFFE is an agent's identity in findings; an id that makes none is shown.
func (s *server) agentSPIFFE(id string) string {
	sid, err := identity.ForAgent(s.td, id)
	if err != nil {
		return id
	}
	return sid.String()
}
