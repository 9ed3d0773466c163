package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/server/access"
	"signet.example/server/departures"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/server/join"
	"signet.example/server/model"
)

// agentAPI is what agents ask. Every method runs behind access, whose caller it hands on.
type agentAPI struct {
	api.UnimplementedAgentAPIServer

	join       *join.Desk
	departures *departures.Departures
	svids      *issuance.SVIDs
	sessions   *fleet.Sessions
	model      func() *model.Model
	// turnedAway is told of what a caller was not given.
	turnedAway func(ctx context.Context, c *access.Caller, action access.Action, why string)
}

// Attest joins an agent by evidence of its host, or renews one by its host key.
func (a *agentAPI) Attest(ctx context.Context, req *api.AttestRequest) (*api.AttestResponse, error) {
	c, err := access.CallerOf(ctx)
	if err != nil {
		return nil, err
	}
	return a.join.Attest(ctx, join.Caller{Conn: c.Conn, Remote: c.Remote, HostKey: c.HostKey, TLS: c.TLS(), Instance: c.Instance}, req)
}

// Issue signs SVIDs in a batch. The caller is the agent of the connection; what
// it may hold is what hangs on its group.
func (a *agentAPI) Issue(ctx context.Context, req *api.IssueRequest) (*api.IssueResponse, error) {
	c, err := access.CallerOf(ctx)
	if err != nil {
		return nil, err
	}
	resp, refused, err := a.svids.Batch(ctx, requesterOf(c, a.model()), req)
	if refused != "" {
		a.turnedAway(ctx, c, access.ActionIssue, refused)
	}
	return resp, err
}

// requesterOf is an agent that was let in, and what hangs on its group.
func requesterOf(c *access.Caller, m *model.Model) issuance.Requester {
	granted := m.Groups().Granted.Group(c.Agent.Group)
	return issuance.Requester{ID: c.ID, Agent: c.Agent.ID, Principal: c.Principal, Entry: func(name string) (identity.Entry, bool) {
		g, ok := granted.Find(name)
		if !ok {
			return identity.Entry{}, false
		}
		return g.Entry, true
	}}
}

// Session carries reports up and questions down.
func (a *agentAPI) Session(stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	c, err := access.CallerOf(stream.Context())
	if err != nil {
		return err
	}
	return a.sessions.Serve(c.Peer(), stream)
}

// tellClash logs and audits that an agent's host key is in two places.
func (s *server) tellClash(ctx context.Context, agent string, c fleet.Clash) {
	s.log.ErrorContext(ctx, "one host key in two places: the newcomer is refused", slog.String("agent", agent),
		slog.String("served", c.Served.String()), slog.String("refused", c.Refused.String()))
	s.audit(ctx, "agent "+agent, "attest", fmt.Sprintf("refused: its host key is in use at %s, and was shown from %s", c.Served, c.Refused))
}

// audit writes a row. What an agent did stays done when the row cannot be
// written; the failure is loud.
func (s *server) audit(ctx context.Context, actor, action, detail string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.store.Audit(ctx, actor, action, detail); err != nil {
		s.metrics.auditErrors.Inc()
		s.log.ErrorContext(ctx, "audit row not written", slog.String("action", action), slog.Any("err", err))
	}
}
