package join

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/roster"
	"signet.example/store"
)

// Evidence is what hosts join by. Its errors wrap nodes.ErrEvidence where the host's
// evidence is at fault.
type Evidence interface {
	// Weigh returns what it costs to verify a request's evidence. It verifies nothing.
	Weigh(ctx context.Context, req *api.AttestRequest, now time.Time) (nodes.Weight, error)
	// Attest verifies it; what is good once is used up.
	Attest(ctx context.Context, req *api.AttestRequest, on nodes.Channel, now time.Time) (nodes.Node, error)
	// Newer returns why a request without evidence has some that is not known here.
	Newer(req *api.AttestRequest) error
}

// Agents is who joined, held in memory, except in Enrol and Follow, which ask the store.
type Agents interface {
	// Follow has those that joined at other servers of the store among them.
	Follow(ctx context.Context) error
	OfKey(hostKey []byte) (id string, ok bool)
	// ByEvidence finds the agent that joined by evidence that can be given again.
	ByEvidence(method string, key []byte) (store.Agent, bool)
	// Standing finds an agent that is to be served: one that joined, by what is taken still, and
	// is not banned. fault.Identity is returned of one that is not known.
	Standing(id string) (store.Agent, error)
	// Enrol stores an agent; it is durable on return. store.ErrConflict is returned when
	// the host key, or what came with it, has joined.
	Enrol(ctx context.Context, a store.Agent) error
}

// Stored is the same, as it is stored: whoever renews is asked for there.
type Stored interface {
	// AgentByKey returns store.ErrNotFound where no agent has the host key.
	AgentByKey(ctx context.Context, hostKey []byte) (store.Agent, error)
}

// Instances is which run of each agent is served.
type Instances interface {
	// ServedAt reports whether the agent's instance was let in from here the last time.
	ServedAt(agent string, from netip.Addr) bool
	// Admit lets an instance of an agent in, or refuses it while another is served.
	Admit(ctx context.Context, agent, instance string, remote netip.Addr) error
	// Joined is the instance by which a new agent joined.
	Joined(agent, instance string, remote netip.Addr)
}

// SVIDs is what an agent's own certificate comes from.
type SVIDs interface {
	// CheckCSR returns why a request has no chance.
	CheckCSR(csr []byte) error
	// Agent issues the own SVID of an agent.
	Agent(ctx context.Context, agent spiffeid.ID, csr []byte) (chain [][]byte, err error)
}

// Config of a Desk. Every field is needed.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Evidence    Evidence
	Agents      Agents
	Stored      Stored
	Instances   Instances
	SVIDs       SVIDs

	First     Limits // of keys of nobody, what the handshake of a connection has paid for, by connection
	Strangers Limits // of keys of nobody, what they ask for beside it, by where they come from
	Lanes     Lanes  // in which what may be rubbish is verified, by where it comes from
	Waiting   Lanes  // the same for what waits for somebody else meanwhile
	Known     Limits // of those that joined, by host key and whether it is served there; of those that may join, by token

	// Group is the group that evidence leads to, or why there is none.
	Group func(nodes.Node) (string, error)
	// Roots is the signed root set.
	Roots func() []byte
	// Vouched is told of a connection on which something good was shown.
	Vouched func(conn net.Addr)
	// Audit writes a row; what was done stays done when it cannot be written.
	Audit func(ctx context.Context, actor, action, detail string)
	Log   *slog.Logger
	Clock func() time.Time
}

// Desk is where hosts join.
type Desk struct{ cfg Config }

// New returns a desk.
func New(cfg Config) *Desk { return &Desk{cfg} }

// Caller is who asks, as its connection proved.
type Caller struct {
	Conn     net.Addr // of the connection's other end
	Remote   netip.Addr
	HostKey  []byte // SHA-256 of the SPKI that the handshake proved
	TLS      tls.ConnectionState
	Instance string // which run of the agent it says that it is
}

// Attest joins an agent by evidence of its host, or renews one by its host key.
func (d *Desk) Attest(ctx context.Context, c Caller, req *api.AttestRequest) (*api.AttestResponse, error) {
	turn, err := d.pay(ctx, c, req)
	if err != nil {
		return nil, err
	}
	node, err := d.verify(ctx, c, req, turn)
	if err != nil {
		return nil, err
	}
	agent, err := d.agent(ctx, c, req, node)
	if err != nil {
		return nil, err
	}
	id, err := identity.ForAgent(d.cfg.TrustDomain, agent)
	if err != nil {
		return nil, err
	}
	chain, err := d.cfg.SVIDs.Agent(ctx, id, req.GetCsr())
	if err != nil {
		return nil, err
	}
	if err := d.stands(ctx, agent); err != nil { // banned while the signer was asked: what was made for it is not handed out
		return nil, err
	}
	return &api.AttestResponse{AgentId: agent, Chain: chain, SignedRootSet: d.cfg.Roots()}, nil
}

// stands returns why an agent is not to be served.
func (d *Desk) stands(ctx context.Context, agent string) error {
	_, err := d.cfg.Agents.Standing(agent)
	if errors.Is(err, fault.Identity) && d.cfg.Agents.Follow(ctx) == nil { // it may have joined at another server
		_, err = d.cfg.Agents.Standing(agent)
	}
	return err
}

// refused is the refusal of evidence as its host may see it: what it says may
// quote what the host sent.
func refused(err error) error { return fault.New(fault.Denied, "%s", plain.Text(err.Error())) }

// agent is the id of the agent that the caller is, or is from now on. What it has shown is
// verified.
func (d *Desk) agent(ctx context.Context, c Caller, req *api.AttestRequest, node nodes.Node) (string, error) {
	if nodes.Method(req) == "" {
		return d.known(ctx, c, req)
	}
	d.cfg.Vouched(c.Conn)
	group, err := d.cfg.Group(node)
	if err != nil {
		return "", err
	}
	return d.enrol(ctx, c, node, group, plain.Text(req.GetHostname()))
}

// enrol finds or makes the agent of a host whose evidence is good.
func (d *Desk) enrol(ctx context.Context, c Caller, node nodes.Node, group, hostname string) (string, error) {
	agent := store.Agent{
		ID: agentID(hostname), Group: node.Group, Hostname: hostname, HostKey: c.HostKey, Joined: d.cfg.Clock().UTC(), Address: c.Remote.String(),
		Method: node.Method, Selectors: node.Selectors.Strings(), Evidence: node.Key,
	}
	again, err := d.again(ctx, c, agent)
	switch {
	case err != nil:
		return "", err
	case again != "":
		agent.ID = again
	}
	if err := d.cfg.Agents.Enrol(ctx, agent); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return "", fault.New(fault.Invalid, "this host key, or what came with it, has joined already; use a new one")
		}
		return "", fmt.Errorf("enrol %s: %w", agent.ID, err)
	}
	if again == "" { // not before: the id of one that did not join is nobody's to forget
		d.cfg.Instances.Joined(agent.ID, c.Instance, c.Remote)
	}
	d.cfg.Audit(ctx, "agent "+agent.ID, "attest", fmt.Sprintf("joined group %s as %s from %s by %s, host key %x", group, agent.ID, c.Remote, describe(node), c.HostKey))
	d.cfg.Log.InfoContext(ctx, "agent joined", slog.String("agent", agent.ID), slog.String("group", group),
		slog.String("method", node.Method), slog.String("remote", c.Remote.String()))
	return agent.ID, nil
}

// again is the id of the agent that gave the same evidence before, and lets the host in
// as that agent; "" where there is none. Evidence that can be given again is a host's,
// whatever host key it comes with: so a ban of the agent holds, and a copy of it gets no
// place beside the agent that is connected.
func (d *Desk) again(ctx context.Context, c Caller, agent store.Agent) (string, error) {
	if err := d.cfg.Agents.Follow(ctx); err != nil {
		return "", fmt.Errorf("%w: %w", fault.Unavailable, err)
	}
	old, again := d.cfg.Agents.ByEvidence(agent.Method, agent.Evidence)
	switch {
	case agent.Evidence == nil || !again:
		return "", nil
	}
	if _, err := d.cfg.Agents.Standing(old.ID); err != nil {
		return "", err
	}
	return old.ID, d.cfg.Instances.Admit(ctx, old.ID, c.Instance, c.Remote)
}

// describe is evidence in the audit trail.
func describe(n nodes.Node) string {
	if len(n.Selectors) == 0 {
		return n.Method
	}
	return fmt.Sprintf("%s (%s)", n.Method, plain.Text(strings.Join(n.Selectors.Strings(), ", ")))
}

// known finds the agent of a host key that joined before.
func (d *Desk) known(ctx context.Context, c Caller, req *api.AttestRequest) (string, error) {
	agent, err := d.cfg.Stored.AgentByKey(ctx, c.HostKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := d.cfg.Evidence.Newer(req); err != nil {
			return "", refused(err)
		}
		return "", fault.New(fault.Identity, "this host key is not known here; join with a new token, or by evidence of its own (the agent's key join)")
	case err != nil:
		return "", fmt.Errorf("%w: look up a host key: %w", fault.Unavailable, err)
	case agent.Banned: // which memory may not have yet
		return "", roster.ErrBanned(agent.ID)
	}
	if err := d.stands(ctx, agent.ID); err != nil {
		return "", err
	}
	return agent.ID, d.cfg.Instances.Admit(ctx, agent.ID, c.Instance, c.Remote)
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
