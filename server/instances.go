package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	grpcmd "google.golang.org/grpc/metadata"

	"signet.example/api"
)

// A host key lies in a file, and a file can be copied: by a thief, or with the
// image of a machine. Each run of an agent draws an instance id. While one run
// is connected and answers, no other one with its host key is let in; one that
// was killed, or whose host lost its power, does not answer, and the next is let
// in at once (docs/decisions/018).
const (
	maxInstance = 64
	// clashKept is how long `signet check` tells of a refused instance, unless the
	// agent is banned before.
	clashKept = 24 * time.Hour
	// clashAgain is when the same agent's next clash is worth a line and a row.
	clashAgain = time.Minute
)

// instances is which run of each agent is served.
type instances struct {
	// answers reports whether an instance has a session that is alive, and where. With
	// an error it is not known: nothing changes hands.
	answers func(ctx context.Context, agent, instance string, newcomer netip.Addr) (at netip.Addr, alive bool, err error)
	evict   func(agent, instance string) // ends the streams of all other instances
	tell    func(ctx context.Context, agent string, c clash)
	clock   func() time.Time
	log     *slog.Logger

	mu      sync.Mutex           // guards the following; not held while anybody is asked
	current map[string]servedRun // by agent id: who is served
	clashes map[string]clash     // by agent id: the last
}

// servedRun is one instance of an agent, and where it was let in last: its address, or the /64
// that it is in.
type servedRun struct {
	instance string
	at       netip.Prefix
}

// clash is one host key in two places.
type clash struct {
	served, refused netip.Addr
	at, told        time.Time
}

func newInstances(s *server) *instances {
	return &instances{
		answers: s.sessions.answers, evict: s.access.evict, tell: s.tellClash, clock: s.clock, log: s.log,
		current: map[string]servedRun{}, clashes: map[string]clash{},
	}
}

// instanceOf is what a caller says that its instance is; callers of the last
// version say nothing, and are one.
func instanceOf(ctx context.Context) (string, error) {
	all := grpcmd.ValueFromIncomingContext(ctx, api.InstanceHeader)
	switch {
	case len(all) == 0:
		return "", nil
	case len(all) > 1 || len(all[0]) > maxInstance:
		return "", reason(errInvalid, "%s: want one text of at most %d bytes", api.InstanceHeader, maxInstance)
	}
	return all[0], nil
}

// admit lets a caller in as an agent, or refuses it while another instance is
// served or may be. It can take probeWait and probeMargin.
func (i *instances) admit(ctx context.Context, agent string, c *caller) error {
	i.mu.Lock()
	now, known := i.current[agent]
	if !known || now.instance == c.instance {
		i.current[agent] = runOf(c)
		i.mu.Unlock()
		return nil
	}
	i.mu.Unlock()
	at, alive, err := i.answers(ctx, agent, now.instance, c.remote)
	if err != nil {
		return fmt.Errorf("admit agent %s: %w", agent, err)
	}
	if alive {
		i.clash(ctx, agent, at, c.remote)
		return inUse(agent)
	}
	i.mu.Lock()
	first := i.current[agent].instance == now.instance
	if first {
		i.current[agent] = runOf(c)
	}
	i.mu.Unlock()
	if !first { // a third one was faster
		return inUse(agent)
	}
	i.evict(agent, c.instance)
	return nil
}

// joined is the instance by which a new agent joined.
func (i *instances) joined(agent string, c *caller) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.current[agent] = runOf(c)
}

func runOf(c *caller) servedRun { return servedRun{c.instance, prefixOf(c.remote)} }

// servedAt reports whether an agent's instance was let in from here the last time.
func (i *instances) servedAt(agent string, from netip.Addr) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.current[agent].at == prefixOf(from)
}

// forget lets go of an agent that was deleted.
func (i *instances) forget(agent string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.current, agent)
	delete(i.clashes, agent)
}

func inUse(agent string) error {
	return reason(errConflict, "agent %s is connected already: another process has its host key", agent)
}

func (i *instances) clash(ctx context.Context, agent string, served, refused netip.Addr) {
	now := i.clock()
	i.mu.Lock()
	c := clash{served: served, refused: refused, at: now, told: i.clashes[agent].told}
	tell := now.Sub(c.told) >= clashAgain
	if tell {
		c.told = now
	}
	i.clashes[agent] = c
	i.mu.Unlock()
	if tell {
		i.tell(ctx, agent, c)
	}
}

// recent lists the clashes that are worth a finding.
func (i *instances) recent() map[string]clash {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := map[string]clash{}
	for agent, c := range i.clashes {
		if i.clock().Sub(c.at) < clashKept {
			list[agent] = c
		}
	}
	return list
}

func (s *server) tellClash(ctx context.Context, agent string, c clash) {
	s.log.ErrorContext(ctx, "one host key in two places: the newcomer is refused", slog.String("agent", agent),
		slog.String("served", c.served.String()), slog.String("refused", c.refused.String()))
	s.audit(ctx, "agent "+agent, "attest", fmt.Sprintf("refused: its host key is in use at %s, and was shown from %s", c.served, c.refused))
}

func (a *admin) checkInstances(context.Context) []*api.Finding {
	var list []*api.Finding
	clashes := a.instances.recent()
	for _, id := range sortedKeys(clashes) {
		if g, ok := a.roster.get(id); !ok || g.Banned {
			continue
		}
		c := clashes[id]
		list = append(list, finding(findTwoPlaces, sevError, a.agentSPIFFE(id),
			"signet ban "+id+", and join both hosts anew, each with a token of its own and an empty data_dir; if you copied the folder yourself, remove the copy",
			"its host key is in two places: the agent at %s is served, and another one at %s was refused, last at %s", c.served, c.refused, utc(c.at)))
	}
	return list
}

// evict ends the streams of an agent that other instances than this one have.
func (a *access) evict(agent, instance string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.open {
		if c.agent.ID == agent && c.instance != instance {
			c.cancel(inUse(agent))
		}
	}
}
