package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"signet.example/api"
)

const (
	// reconnectGrace is how long an agent may be without a session before that is
	// a finding: a connection is renewed at half of its certificate's life, and a
	// restarted server's agents come back one by one.
	reconnectGrace = 3 * time.Second
	// handover is how long an agent may still be seen after its successor joined.
	handover = time.Second
)

// checkAgents is about hosts without a connected agent.
func (a *admin) checkAgents(context.Context) []*api.Finding {
	var list []*api.Finding
	var standing, connected int
	for _, h := range a.hosts() {
		for _, st := range h {
			if st.state == api.AgentInfo_BANNED {
				continue
			}
			standing++
			if a.there(st) {
				connected++
			}
		}
		list = append(list, a.absent(h)...)
	}
	switch {
	case connected > 0:
	case standing == 0:
		fix := "signet token create --group <group>"
		if a.cfg.Join.X509PoP.Roots != "" {
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
func (a *admin) there(st agentStatus) bool {
	now := a.clock()
	return st.session != nil || now.Sub(st.left) < reconnectGrace || now.Sub(a.started) < reconnectGrace
}

// host is the agents that joined under one name from one group, in the order of
// joining: an agent that was made anew, and hosts that have one name.
type host []agentStatus

// hosts are told apart by group and host name. The name is only what the agent
// says, so only advice may depend on it.
func (a *admin) hosts() []host {
	by := map[string]host{}
	for _, g := range a.roster.All() {
		key := g.Group + "/" + g.Hostname // a group's name has no slash
		if g.Evidence != nil || g.Hostname == "" || g.Hostname == "localhost" || strings.HasPrefix(g.Hostname, "localhost.") {
			key += "/" + g.ID // it would come back as the same agent, or its name is everybody's: another one is another host
		}
		by[key] = append(by[key], a.agentStatus(g))
	}
	list := make([]host, 0, len(by))
	for _, key := range sortedKeys(by) {
		slices.SortFunc(by[key], func(x, y agentStatus) int { return x.Joined.Compare(y.Joined) })
		list = append(list, by[key])
	}
	return list
}

// replaced reports whether agent i has a successor: one of its name joined when
// it was not seen any more. Two that lived at the same time are two hosts.
func (h host) replaced(i int) bool {
	return slices.ContainsFunc(h[i+1:], func(next agentStatus) bool {
		return !h[i].seen.After(next.Joined.Add(handover))
	})
}

// absent are the findings about agents of one name that are not connected and
// were not replaced. That an agent is banned is meant.
func (a *admin) absent(h host) []*api.Finding {
	var list []*api.Finding
	for i, st := range h {
		if st.state == api.AgentInfo_BANNED || a.there(st) || h.replaced(i) {
			continue
		}
		subject := fmt.Sprintf("host %s of group %s, agent %s", st.Hostname, st.Group, st.ID)
		without := "without: signet token create --group " + st.Group
		if st.Evidence != nil {
			without = "without, it gives its " + st.Method + " evidence again"
		}
		if st.state != api.AgentInfo_GONE {
			list = append(list, finding(findDisconnected, sevWarning, subject, "start `signet agent` there (with its data_dir it needs no token; "+without+")",
				"it is not connected, last seen at %s; what it has cached goes on working until it expires, its own certificate at %s", utc(st.seen), utc(st.end)))
			continue
		}
		var gone []string
		for j, old := range h {
			if old.state == api.AgentInfo_GONE && (j == i || h.replaced(j)) {
				gone = append(gone, old.ID)
			}
		}
		list = append(list, finding(findDisconnected, sevWarning, subject, "signet delete agent "+strings.Join(gone, " ")+" (if the host does not come back; else start `signet agent` there: with its data_dir it needs no token)",
			"it is not connected, last seen at %s, and its certificate ended at %s", utc(st.seen), utc(st.end)))
	}
	return list
}

// checkInstances is about host keys that are in two places.
func (a *admin) checkInstances(context.Context) []*api.Finding {
	var list []*api.Finding
	clashes := a.instances.Recent()
	for _, id := range sortedKeys(clashes) {
		g, ok := a.roster.Get(id)
		if !ok || g.Banned {
			continue
		}
		by := "a token"
		if g.Evidence != nil {
			by = "a certificate for a key"
		}
		c := clashes[id]
		list = append(list, finding(findTwoPlaces, sevError, a.agentSPIFFE(id),
			"signet ban "+id+", and join both hosts anew, each with "+by+" of its own and an empty data_dir; if you made the copy yourself, remove it: this is told until a day after the last refusal",
			"its host key, or what it joined by, is in two places: the agent at %s is served, and another one at %s was refused, last at %s", c.Served, c.Refused, utc(c.At)))
	}
	return list
}

// checkGroups is about hosts that have joined and are in no group: their NodeGroups
// were changed since.
func (a *admin) checkGroups(context.Context) []*api.Finding {
	var list []*api.Finding
	for _, g := range a.roster.BySelectors() {
		if g.Group != "" || g.Banned {
			continue
		}
		_, fix, err := a.model().placed(g)
		if err == nil { // it is in one by now
			continue
		}
		list = append(list, finding(findNoGroup, sevError, a.agentSPIFFE(g.ID), fix, "its workloads and proxies get no certificates: %v", err))
	}
	return list
}
