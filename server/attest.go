package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/store"
)

// agentAPI is what agents ask. Every method runs behind access.
type agentAPI struct {
	api.UnimplementedAgentAPIServer
	*server

	nodes     *nodes.Attestors
	strangers *limiters // attestations with keys of nobody, by where they come from
	attests   *limiters // attestations of those that joined, by host key and whether it is served there; of those that may join, by token
	svids     *issuance.SVIDs
}

// attestable takes the attestation of a caller out of a bucket, before anything of
// its evidence is verified. One that joined is known by the key that its handshake
// proved, one that may join by its token: each has a bucket that nobody else can empty,
// so that whoever shares its address cannot keep it out. Nor can a copy of its folder
// from another address, which has the key: where the agent was let in last it has a
// bucket, and everywhere else the other.
func (a *agentAPI) attestable(ctx context.Context, c *caller, req *api.AttestRequest) error {
	id, joined := a.roster.OfKey(c.hostKey)
	w, err := a.nodes.Weigh(ctx, req, a.clock())
	switch {
	case errors.Is(err, nodes.ErrEvidence):
		return evidenceError(err)
	case err != nil:
		return fmt.Errorf("%w: %w", fault.Unavailable, err)
	case joined:
		where := "elsewhere"
		if a.instances.ServedAt(id, c.remote) {
			where = "there"
		}
		return a.attests.Take(string(c.hostKey)+where, w.Units)
	case w.Own != nil:
		a.access.vouched(c.conn)
		return a.attests.Take(string(w.Own), w.Units)
	case a.strangers.Take(fleet.Source(c.remote).String(), w.Units) != nil:
		return fault.Limit
	}
	return nil
}

// evidenceError is the refusal of evidence as its host may see it: what it says may
// quote what the host sent.
func evidenceError(err error) error { return fault.New(fault.Denied, "%s", plain.Text(err.Error())) }

// Attest joins an agent by evidence of its host, or renews one by its host key.
func (a *agentAPI) Attest(ctx context.Context, req *api.AttestRequest) (*api.AttestResponse, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.attestable(ctx, c, req); err != nil {
		return nil, err
	}
	// Before a token is used up: a request that cannot succeed should not cost it.
	if err := a.svids.CheckCSR(req.GetCsr()); err != nil {
		return nil, err
	}
	agent, err := a.enrol(ctx, c, req)
	if err != nil {
		return nil, err
	}
	chain, err := a.sign(ctx, agent, req.GetCsr())
	if err != nil {
		return nil, err
	}
	return &api.AttestResponse{AgentId: agent.ID, Chain: chain, SignedRootSet: a.authority.Roots().Signed}, nil
}

// enrol finds or makes the agent.
func (a *agentAPI) enrol(ctx context.Context, c *caller, req *api.AttestRequest) (store.Agent, error) {
	if nodes.Method(req) == "" {
		return a.known(ctx, c, req)
	}
	node, err := a.nodes.Attest(ctx, req, nodes.Channel{TrustDomain: a.td, HostKey: c.hostKey, TLS: c.peer.State}, a.clock())
	if errors.Is(err, nodes.ErrEvidence) || errors.Is(err, store.ErrToken) {
		return store.Agent{}, evidenceError(err)
	}
	if err != nil {
		return store.Agent{}, err
	}
	a.access.vouched(c.conn)
	group, err := a.model().groupOf(node)
	if err != nil {
		return store.Agent{}, err
	}
	hostname := plain.Text(req.GetHostname())
	agent := store.Agent{
		ID: agentID(hostname), Group: node.Group, Hostname: hostname, HostKey: c.hostKey, Joined: a.clock().UTC(),
		Method: node.Method, Selectors: node.Selectors.Strings(), Evidence: node.Key,
	}
	again, err := a.again(ctx, c, agent)
	switch {
	case err != nil:
		return store.Agent{}, err
	case again != "":
		agent.ID = again
	}
	if err := a.roster.Enrol(ctx, agent); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return store.Agent{}, fault.New(fault.Invalid, "this host key, or what came with it, has joined already; use a new one")
		}
		return store.Agent{}, fmt.Errorf("enrol %s: %w", agent.ID, err)
	}
	if again == "" { // not before: the id of one that did not join is nobody's to forget
		a.instances.Joined(agent.ID, c.instance, c.remote)
	}
	a.audit(ctx, "agent "+agent.ID, "attest", fmt.Sprintf("joined group %s as %s from %s by %s, host key %x", group, agent.ID, c.remote, describeNode(node), c.hostKey))
	a.log.InfoContext(ctx, "agent joined", slog.String("agent", agent.ID), slog.String("group", group),
		slog.String("method", node.Method), slog.String("remote", c.remote.String()))
	return agent, nil
}

// again is the id of the agent that gave the same evidence before, and lets the host in
// as that agent; "" where there is none. Evidence that can be given again is a host's,
// whatever host key it comes with: so a ban of the agent holds, and a copy of it gets no
// place beside the agent that is connected.
func (a *agentAPI) again(ctx context.Context, c *caller, agent store.Agent) (string, error) {
	old, again := a.roster.ByEvidence(agent.Method, agent.Evidence)
	switch {
	case agent.Evidence == nil || !again:
		return "", nil
	case old.Banned:
		return "", fleet.ErrBanned(old.ID)
	}
	return old.ID, a.instances.Admit(ctx, old.ID, c.instance, c.remote)
}

// describeNode is evidence in the audit trail.
func describeNode(n nodes.Node) string {
	if len(n.Selectors) == 0 {
		return n.Method
	}
	return fmt.Sprintf("%s (%s)", n.Method, plain.Text(strings.Join(n.Selectors.Strings(), ", ")))
}

// known finds the agent of a host key that joined before.
func (a *agentAPI) known(ctx context.Context, c *caller, req *api.AttestRequest) (store.Agent, error) {
	agent, err := a.store.AgentByKey(ctx, c.hostKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := a.nodes.Newer(req); err != nil {
			return store.Agent{}, evidenceError(err)
		}
		return store.Agent{}, fault.New(fault.Identity, "this host key is not known here; join with a new token, or by a certificate (join.x509pop)")
	case err != nil:
		return store.Agent{}, fmt.Errorf("%w: look up a host key: %w", fault.Unavailable, err)
	case agent.Banned:
		return store.Agent{}, fleet.ErrBanned(agent.ID)
	}
	return agent, a.instances.Admit(ctx, agent.ID, c.instance, c.remote)
}

// sign issues the agent's own SVID.
func (a *agentAPI) sign(ctx context.Context, agent store.Agent, csr []byte) ([][]byte, error) {
	id, err := identity.ForAgent(a.td, agent.ID)
	if err != nil {
		return nil, err
	}
	return a.svids.Agent(ctx, id, csr)
}

// Issue signs SVIDs in a batch. The caller is the agent of the connection; what
// it may hold is what hangs on its group.
func (a *agentAPI) Issue(ctx context.Context, req *api.IssueRequest) (*api.IssueResponse, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	resp, refused, err := a.svids.Batch(ctx, requesterOf(c, a.model()), req)
	if refused != "" {
		a.refusals.refused(ctx, c, "issue", refused)
	}
	return resp, err
}

// requesterOf is an agent that was let in, and what hangs on its group.
func requesterOf(c *caller, m *model) issuance.Requester {
	granted := m.groups.Granted.Group(c.agent.Group)
	return issuance.Requester{ID: c.id, Agent: c.agent.ID, Entry: func(name string) (identity.Entry, bool) {
		g, ok := granted.Find(name)
		if !ok {
			return identity.Entry{}, false
		}
		return g.Entry, true
	}}
}

// agentID is a name that people can read and nobody can guess or choose:
// something of the hostname, and 40 random bits.
func agentID(hostname string) string {
	host, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, host)
	host = strings.Trim(host[:min(len(host), 40)], "-")
	if host == "" {
		host = "host"
	}
	b := make([]byte, 5)
	_, _ = rand.Read(b) // crypto/rand.Read never fails since Go 1.24
	return host + "-" + hex.EncodeToString(b)
}

// Session carries reports up and questions down.
func (a *agentAPI) Session(stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	c, err := callerOf(stream.Context())
	if err != nil {
		return err
	}
	return a.sessions.Serve(c.asPeer(), stream)
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
