package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/store"
)

const (
	// reconnectGrace is how long an agent may be without a session before that is
	// a finding: a connection is renewed at half of its certificate's life, and a
	// restarted server's agents come back one by one.
	reconnectGrace = 3 * time.Second
	// handover is how long an agent may still be seen after its successor joined.
	handover = time.Second
)

// agents is about hosts without a connected agent.
func (l Look) agents() []*api.Finding {
	var list []*api.Finding
	var standing, connected int
	for _, h := range l.hosts() {
		for _, st := range h {
			if st.State == api.AgentInfo_BANNED {
				continue
			}
			standing++
			if l.there(st) {
				connected++
			}
		}
		list = append(list, l.absent(h)...)
	}
	switch {
	case connected > 0:
	case standing == 0:
		fix := "signet token create --group <group>"
		if l.ByCertificate {
			fix += ", or start `signet agent` with a certificate (join.x509pop) on a host that the selectors of a NodeGroup fit"
		}
		list = append(list, finding(findNoAgent, sevWarning, "agents", fix, "no agent has joined: nobody is served"))
	default:
		list = append(list, finding(findNoAgent, sevError, "agents", "start `signet agent` on the hosts; look at their logs, and at whether they reach this server",
			"no agent is connected: nothing is renewed, no change arrives, and calls fail as endpoints and certificates end"))
	}
	return list
}

// there reports whether an agent is connected, or was until just now.
func (l Look) there(st fleet.Status) bool {
	return st.Connected() || l.Now.Sub(st.Left) < reconnectGrace || l.Now.Sub(l.Started) < reconnectGrace
}

// host is the agents that joined under one name from one group, in the order of
// joining: an agent that was made anew, and hosts that have one name.
type host []fleet.Status

// hosts are told apart by group and host name. The name is only what the agent
// says, so only advice may depend on it.
func (l Look) hosts() []host {
	by := map[string]host{}
	for _, st := range l.Agents {
		g := st.Agent
		key := g.Group + "/" + g.Hostname // a group's name has no slash
		if g.Evidence != nil || g.Hostname == "" || g.Hostname == "localhost" || strings.HasPrefix(g.Hostname, "localhost.") {
			key += "/" + g.ID // it would come back as the same agent, or its name is everybody's: another one is another host
		}
		by[key] = append(by[key], st)
	}
	list := make([]host, 0, len(by))
	for _, key := range slices.Sorted(maps.Keys(by)) {
		slices.SortFunc(by[key], func(x, y fleet.Status) int { return x.Agent.Joined.Compare(y.Agent.Joined) })
		list = append(list, by[key])
	}
	return list
}

// replaced reports of each agent whether it has a successor: one of its name joined
// from its address when it was not seen any more. Two that lived at the same time are
// two hosts, and so are two of two addresses; one host takes the place of one.
func (h host) replaced() []bool {
	replaced := make([]bool, len(h))
	for j := range h {
		last := -1
		for i := range j {
			if !replaced[i] && h.follows(j, i) && sameAddress(h[i], h[j]) && (last < 0 || !h[i].Seen.Before(h[last].Seen)) {
				last = i
			}
		}
		if last >= 0 {
			replaced[last] = true
		}
	}
	return replaced
}

// follows reports whether agent j joined when agent i was not seen any more.
func (h host) follows(j, i int) bool { return !h[i].Seen.After(h[j].Agent.Joined.Add(handover)) }

// sameAddress reports whether two agents joined from one address, or may have: of those
// that joined before it was written down it is not known.
func sameAddress(a, b fleet.Status) bool {
	return a.Agent.Address == b.Agent.Address || a.Agent.Address == "" || b.Agent.Address == ""
}

// namesake names who may have taken the place of agent i, by name alone; "" for
// nobody.
func (h host) namesake(i int) string {
	for j := len(h) - 1; j > i; j-- {
		if h.follows(j, i) && !sameAddress(h[i], h[j]) {
			return fmt.Sprintf("; agent %s has its name and joined later from %s, where this one joined from %s: another host, or this one made anew elsewhere",
				h[j].Agent.ID, h[j].Agent.Address, h[i].Agent.Address)
		}
	}
	return ""
}

// absent are the findings about agents of one name that are not connected and
// were not replaced. That an agent is banned is meant.
func (l Look) absent(h host) []*api.Finding {
	var list []*api.Finding
	replaced := h.replaced()
	for i, st := range h {
		if st.State == api.AgentInfo_BANNED || l.there(st) || replaced[i] || l.Ends != nil && l.Ends(st.Agent.Method) {
			continue
		}
		subject := fmt.Sprintf("host %s of group %s, agent %s", st.Agent.Hostname, st.Agent.Group, st.Agent.ID)
		without := "without: signet token create --group " + st.Agent.Group
		if st.Agent.Evidence != nil {
			without = "without, it gives its " + st.Agent.Method + " evidence again"
		}
		if st.State != api.AgentInfo_GONE {
			list = append(list, finding(findDisconnected, sevWarning, subject, "start `signet agent` there (with its data_dir it needs no token; "+without+")",
				"it is not connected, last seen at %s; what it has cached goes on working until it expires, its own certificate at %s%s", plain.UTC(st.Seen), plain.UTC(st.End), h.namesake(i)))
			continue
		}
		var gone []string
		for j, old := range h {
			if old.State == api.AgentInfo_GONE && (j == i || replaced[j]) {
				gone = append(gone, old.Agent.ID)
			}
		}
		list = append(list, finding(findDisconnected, sevWarning, subject, "signet delete agent "+strings.Join(gone, " ")+" (if the host does not come back; else start `signet agent` there: with its data_dir it needs no token)",
			"it is not connected, last seen at %s, and its certificate ended at %s%s", plain.UTC(st.Seen), plain.UTC(st.End), h.namesake(i)))
	}
	return list
}

// instances is about host keys that are in two places.
func (l Look) instances() []*api.Finding {
	var list []*api.Finding
	for _, st := range l.Agents {
		g, c := st.Agent, l.Clashes[st.Agent.ID]
		if c.At.IsZero() || g.Banned {
			continue
		}
		by := "a token"
		if g.Evidence != nil {
			by = "a certificate for a key"
		}
		list = append(list, finding(findTwoPlaces, sevError, st.SPIFFE,
			"signet ban "+g.ID+", and join both hosts anew, each with "+by+" of its own and an empty data_dir; if you made the copy yourself, remove it: this is told until a day after the last refusal",
			"its host key, or what it joined by, is in two places: the agent at %s is served, and another one at %s was refused, last at %s", c.Served, c.Refused, plain.UTC(c.At)))
	}
	return list
}

// many is about agents of which there may soon be no more.
func (l Look) many() []*api.Finding {
	var list []*api.Finding
	for _, principal := range slices.Sorted(maps.Keys(l.Many)) {
		n := l.Many[principal]
		list = append(list, finding(findManyOfOne, sevWarning, principal,
			"signet get agents -o wide; where all should be there, raise "+n.Key+" in the server's configuration and restart it; else find who can join by it",
			"%d agents joined by it, and at %d no other one does", n.Is, n.Most))
	}
	return list
}

// groups is about hosts that have joined and are in no group: their NodeGroups
// were changed since.
func (l Look) groups() []*api.Finding {
	var list []*api.Finding
	for _, st := range l.Agents {
		g := st.Agent
		if g.Group != "" || g.Banned {
			continue
		}
		_, fix, err := placed(l.Stored.Groups().Placing, g)
		if err == nil { // it is in one by now
			continue
		}
		list = append(list, finding(findNoGroup, sevError, st.SPIFFE, fix, "its workloads and proxies get no certificates: %v", err))
	}
	return list
}

// placed is the group of a host that joined by evidence of its own. Where there is
// none, fix is the command that mends it.
func placed(by groups.Placing, g store.Agent) (group, fix string, err error) {
	has, err := identity.ParseSelectors(g.Selectors)
	if err == nil {
		group, err = by.Group(has)
	}
	fix = "signet apply -f <file with a NodeGroup whose selectors the host has all of, and which is the only one>"
	if fit := by.Fitting(has); len(fit) > 1 {
		fix = "signet get nodegroups -o yaml; change the selectors of, or delete, all but one of: " + strings.Join(fit, ", ")
	}
	return group, fix, err
}
