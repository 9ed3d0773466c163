package fleet

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	grpcmd "google.golang.org/grpc/metadata"

	"signet.example/api"
	"signet.example/server/fault"
)

// A host key lies in a file, and a file can be copied: by a thief, or with the
// image of a machine. Each run of an agent draws an instance id. While one run
// is connected and answers, no other one with its host key is let in; one that
// was killed, or whose host lost its power, does not answer, and the next is let
// in at once (docs/decisions/018).
const (
	maxInstance = 64
	// clashKept is how long `signet check` shows a refused instance, unless the
	// agent is banned before.
	clashKept = 24 * time.Hour
	// clashAgain is when the same agent's next clash is worth a line and a row.
	clashAgain = time.Minute
)

// Prober reports whether an instance has a session that is alive, and where. With an
// error it is not known: nothing changes hands. It is asked from many goroutines, and
// under no lock of Instances.
type Prober interface {
	Answers(ctx context.Context, agent, instance string, newcomer netip.Addr) (at netip.Addr, alive bool, err error)
}

// Streams are those of all agents that are open.
type Streams interface {
	// Evict ends those that other instances of the agent have, with the reason.
	Evict(agent, instance string, why error)
}

// Instances is which run of each agent is served.
type Instances struct {
	sessions Prober
	streams  Streams
	tell     func(ctx context.Context, agent string, c Clash) // of the first clash in a minute
	clock    func() time.Time

	mu      sync.Mutex           // guards the following; not held while anybody is asked
	current map[string]servedRun // by agent id: who is served
	clashes map[string]Clash     // by agent id: the last
}

// servedRun is one instance of an agent, and where it was let in last: its address, or the /64
// that it is in.
type servedRun struct {
	instance string
	at       netip.Prefix
}

// Clash is one host key in two places.
type Clash struct {
	Served, Refused netip.Addr
	At              time.Time
	logged          time.Time
}

// NewInstances has no instance yet.
func NewInstances(sessions Prober, streams Streams, tell func(ctx context.Context, agent string, c Clash), clock func() time.Time) *Instances {
	return &Instances{sessions: sessions, streams: streams, tell: tell, clock: clock, current: map[string]servedRun{}, clashes: map[string]Clash{}}
}

// InstanceOf is what a caller says that its instance is; callers of the last
// version say nothing, and are one.
func InstanceOf(ctx context.Context) (string, error) {
	all := grpcmd.ValueFromIncomingContext(ctx, api.InstanceHeader)
	switch {
	case len(all) == 0:
		return "", nil
	case len(all) > 1 || len(all[0]) > maxInstance:
		return "", fault.New(fault.Invalid, "%s: want one text of at most %d bytes", api.InstanceHeader, maxInstance)
	}
	return all[0], nil
}

// Admit lets a caller in as an instance of an agent, or refuses it while another
// instance is served or may be. It can take probeWait and probeMargin.
func (i *Instances) Admit(ctx context.Context, agent, instance string, remote netip.Addr) error {
	i.mu.Lock()
	now, known := i.current[agent]
	if !known || now.instance == instance {
		i.current[agent] = servedRun{instance, Source(remote)}
		i.mu.Unlock()
		return nil
	}
	i.mu.Unlock()
	at, alive, err := i.sessions.Answers(ctx, agent, now.instance, remote)
	if err != nil {
		return fmt.Errorf("admit agent %s: %w", agent, err)
	}
	if alive {
		i.clash(ctx, agent, at, remote)
		return inUse(agent)
	}
	i.mu.Lock()
	first := i.current[agent].instance == now.instance
	if first {
		i.current[agent] = servedRun{instance, Source(remote)}
	}
	i.mu.Unlock()
	if !first { // a third one was faster
		return inUse(agent)
	}
	i.streams.Evict(agent, instance, inUse(agent))
	return nil
}

// Joined is the instance by which a new agent joined.
func (i *Instances) Joined(agent, instance string, remote netip.Addr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.current[agent] = servedRun{instance, Source(remote)}
}

// ServedAt reports whether an agent's instance was let in from here the last time.
func (i *Instances) ServedAt(agent string, from netip.Addr) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.current[agent].at == Source(from)
}

// Forget lets go of an agent that was deleted.
func (i *Instances) Forget(agent string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.current, agent)
	delete(i.clashes, agent)
}

func inUse(agent string) error {
	return fault.New(fault.Conflict, "agent %s is connected already: another process has its host key, or what it joined by", agent)
}

func (i *Instances) clash(ctx context.Context, agent string, served, refused netip.Addr) {
	now := i.clock()
	i.mu.Lock()
	c := Clash{Served: served, Refused: refused, At: now, logged: i.clashes[agent].logged}
	tell := now.Sub(c.logged) >= clashAgain
	if tell {
		c.logged = now
	}
	i.clashes[agent] = c
	i.mu.Unlock()
	if tell {
		i.tell(ctx, agent, c)
	}
}

// Recent lists the clashes that are worth a finding.
func (i *Instances) Recent() map[string]Clash {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := map[string]Clash{}
	for agent, c := range i.clashes {
		if i.clock().Sub(c.At) < clashKept {
			list[agent] = c
		}
	}
	return list
}
