package fleet

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	grpcmd "google.golang.org/grpc/metadata"

	"signet.example/api"
	"signet.example/server/conns"
	"signet.example/server/fault"
	"signet.example/server/shared"
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

// Prober reports whether an instance has a session that is alive, and of which session
// it says so, nil where it has none. With an error it is not known: nothing changes hands.
// It is asked from many goroutines.
type Prober interface {
	Answers(ctx context.Context, agent, instance string, newcomer netip.Addr) (asked *Session, alive bool, err error)
}

// Streams are those of all agents that are open.
type Streams interface {
	// Evict ends those that other instances of the agent have, with the reason.
	Evict(agent, instance string, why error)
}

// Instances is which run of each agent is served. That is Known: it is one of all that
// call, on whichever server.
type Instances struct{ cfg InstancesConfig }

// InstancesConfig is what Instances have of the server. Every field is needed.
type InstancesConfig struct {
	Shared   shared.Value[*Known]
	Sessions Prober
	Streams  Streams
	Tell     func(ctx context.Context, agent string, c Clash) // of the first clash in a minute
	Clock    func() time.Time
}

// Clash is one host key in two places.
type Clash struct {
	Served, Refused netip.Addr
	At              time.Time
	logged          time.Time
}

// NewInstances are over what is shared.
func NewInstances(cfg InstancesConfig) *Instances { return &Instances{cfg} }

// Run ends the streams that runs of agents have here which are not served any more, since
// another server let in another one, until ctx ends.
func (i *Instances) Run(ctx context.Context) error {
	follow(ctx, i.cfg.Shared, func(agent string, was Run) {
		if now := i.run(agent); was.served && now.served && now.instance != was.instance {
			i.cfg.Streams.Evict(agent, now.instance, inUse(agent))
		}
	})
	return nil
}

// run is that of an agent.
func (i *Instances) run(agent string) Run {
	now, _ := i.cfg.Shared.Get()
	return now.run(agent)
}

// change has what f makes of an agent's run in its place.
func (i *Instances) change(agent string, f func(*Run)) {
	i.cfg.Shared.Update(func(now *Known) *Known { return now.withRun(agent, f) })
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
	was, ok := i.admit(agent, instance, remote, func(now Run) bool { return !now.served || now.instance == instance })
	if ok {
		return nil
	}
	asked, alive, err := i.cfg.Sessions.Answers(ctx, agent, was.instance, remote)
	if err != nil {
		return fmt.Errorf("admit agent %s: %w", agent, err)
	}
	if alive {
		i.clash(ctx, agent, asked.peer.Remote, remote)
		return inUse(agent)
	}
	// What was found is of one session: the run may have come back with another one meanwhile.
	if _, first := i.admit(agent, instance, remote, func(now Run) bool {
		return now.instance == was.instance && !now.connectedSince(asked)
	}); !first { // the other one, or a third, was faster
		return inUse(agent)
	}
	i.cfg.Streams.Evict(agent, instance, inUse(agent))
	return nil
}

// admit has an instance served if may says so of the run that is served now, which it
// returns. Nothing is changed for one that calls again.
func (i *Instances) admit(agent, instance string, remote netip.Addr, may func(Run) bool) (was Run, ok bool) {
	from := conns.Source(remote)
	if was = i.run(agent); was.served && was.instance == instance && was.from == from && may(was) {
		return was, true
	}
	i.cfg.Shared.Update(func(now *Known) *Known {
		if was = now.run(agent); !may(was) {
			ok = false
			return now
		}
		ok = true
		return now.withRun(agent, func(r *Run) { r.served, r.instance, r.from = true, instance, from })
	})
	return was, ok
}

// Joined is the instance by which a new agent joined.
func (i *Instances) Joined(agent, instance string, remote netip.Addr) {
	i.admit(agent, instance, remote, func(Run) bool { return true })
}

// Serves reports whether an agent's instance is the one that was let in last.
func (i *Instances) Serves(agent, instance string) bool {
	now := i.run(agent)
	return now.served && now.instance == instance
}

// ServedAt reports whether an agent's instance was let in from here the last time.
func (i *Instances) ServedAt(agent string, from netip.Addr) bool {
	return i.run(agent).from == conns.Source(from)
}

func inUse(agent string) error {
	return fault.New(fault.Conflict, "agent %s is connected already: another process has its host key, or what it joined by", agent)
}

func (i *Instances) clash(ctx context.Context, agent string, served, refused netip.Addr) {
	now := i.cfg.Clock()
	var c Clash
	tell := false
	i.change(agent, func(r *Run) {
		c = Clash{Served: served, Refused: refused, At: now, logged: r.clash.logged}
		if tell = now.Sub(c.logged) >= clashAgain; tell {
			c.logged = now
		}
		r.clash = c
	})
	if tell {
		i.cfg.Tell(ctx, agent, c)
	}
}

// Recent lists the clashes that are worth a finding, of all servers.
func (i *Instances) Recent() map[string]Clash {
	list := map[string]Clash{}
	known, _ := i.cfg.Shared.Get()
	for agent, r := range known.runs.All() {
		if !r.clash.At.IsZero() && i.cfg.Clock().Sub(r.clash.At) < clashKept {
			list[string(agent)] = r.clash
		}
	}
	return list
}
