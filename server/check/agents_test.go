package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/api"
	"signet.example/server/fleet"
	"signet.example/store"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// agent joined some time ago, was seen last when its newest certificate was issued, and
// is not connected.
func agent(id, group, host string, joined, issued time.Duration) fleet.Status {
	st := fleet.Status{
		Agent: store.Agent{ID: id, Group: group, Hostname: host, Joined: noon.Add(-joined)}, SPIFFE: "spiffe://test.example/signet/agent/" + id,
		State: api.AgentInfo_AWAY, Seen: noon.Add(-issued), End: noon.Add(time.Hour - issued),
	}
	if !st.End.After(noon) {
		st.State = api.AgentInfo_GONE
	}
	return st
}

func connected(st fleet.Status) fleet.Status {
	st.State, st.Since, st.Seen = api.AgentInfo_CONNECTED, noon, noon
	return st
}

func banned(st fleet.Status) fleet.Status {
	st.State, st.Agent.Banned = api.AgentInfo_BANNED, true
	return st
}

// lookAt is a server that has run for a while.
func lookAt(agents ...fleet.Status) Look {
	return Look{Now: noon, Started: noon.Add(-10 * time.Minute), Agents: agents}
}

func TestCheckWarnsOfHostsAndNotOfAgentsThatWereReplaced(t *testing.T) {
	l := lookAt(
		agent("restarted-1", "g", "restarted", 4*time.Hour, 3*time.Hour),
		connected(agent("restarted-2", "g", "restarted", time.Minute, time.Minute)),
		agent("down-1", "g", "down", 4*time.Hour, 3*time.Hour),
		agent("down-2", "g", "down", 2*time.Hour, time.Minute),
		agent("lost-1", "g", "lost", 4*time.Hour, 3*time.Hour),
		agent("lost-2", "g", "lost", 3*time.Hour, 2*time.Hour),
		agent("restarted-of-another-group", "other", "restarted", 2*time.Hour, time.Minute),
		agent("out-1", "g", "out", 4*time.Hour, 3*time.Hour),
		banned(agent("out-2", "g", "out", time.Minute, time.Minute)),
	)
	got := map[string]string{}
	for _, f := range l.agents() {
		fix, _, _ := strings.Cut(f.GetFix(), " (")
		got[f.GetSubject()] = f.GetId() + " " + fix
	}
	want := map[string]string{
		"host down of group g, agent down-2":                              "SIG001 start `signet agent` there",
		"host lost of group g, agent lost-2":                              "SIG001 signet delete agent lost-1 lost-2",
		"host restarted of group other, agent restarted-of-another-group": "SIG001 start `signet agent` there",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// The name is what the agent says. What it joined from is what the server saw.
func TestTwoHostsOfOneNameAreTwoHosts(t *testing.T) {
	of := func(id, address string, joined, issued time.Duration) fleet.Status {
		st := agent(id, "g", "web", joined, issued)
		st.Agent.Address = address
		return st
	}
	later := func(address string, joined time.Duration) fleet.Status {
		return connected(of("b", address, joined, time.Minute))
	}
	for what, c := range map[string]struct {
		agents []fleet.Status
		want   map[string]string // the agents that are found, and what is said of a namesake
	}{
		"made anew where it was":     {[]fleet.Status{of("a", "192.0.2.1", 4*time.Hour, 3*time.Hour), later("192.0.2.1", time.Minute)}, nil},
		"before addresses were kept": {[]fleet.Status{of("a", "", 4*time.Hour, 3*time.Hour), later("192.0.2.1", time.Minute)}, nil},
		"elsewhere, when it was away": {
			[]fleet.Status{of("a", "192.0.2.1", 4*time.Hour, 3*time.Hour), later("192.0.2.2", time.Minute)},
			map[string]string{"a": "agent b has its name and joined later from 192.0.2.2"},
		},
		"elsewhere, when it was there": {
			[]fleet.Status{of("a", "192.0.2.1", 4*time.Hour, 10*time.Minute), later("192.0.2.2", time.Hour)},
			map[string]string{"a": ""},
		},
		"one in the place of two behind one address": {
			[]fleet.Status{of("a", "192.0.2.1", 5*time.Hour, 3*time.Hour), of("c", "192.0.2.1", 4*time.Hour, 2*time.Hour), later("192.0.2.1", time.Minute)},
			map[string]string{"a": ""},
		},
	} {
		found := 0
		for _, f := range lookAt(c.agents...).agents() {
			_, id, _ := strings.Cut(f.GetSubject(), "agent ")
			want, ok := c.want[id]
			if found++; !ok || !strings.Contains(f.GetCause(), want) || want == "" && strings.Contains(f.GetCause(), "its name") {
				t.Errorf("%s: %s: %s", what, f.GetSubject(), f.GetCause())
			}
		}
		if found != len(c.want) {
			t.Errorf("%s: %d findings, want %d", what, found, len(c.want))
		}
	}
}

func TestHostsThatNoNameTellsApartAreToldApartByTheirAgents(t *testing.T) {
	var agents []fleet.Status
	for id, joined := range map[string]time.Duration{"one": 4 * time.Hour, "two": time.Minute} { // the one was not seen any more when the other joined
		local, clone := agent(id, "g", "localhost", joined, joined), agent("clone-"+id, "g", "clone", joined, joined)
		clone.Agent.Evidence = []byte(id)
		if id == "two" {
			local = connected(local)
		}
		agents = append(agents, local, clone)
	}
	var got []string
	for _, f := range lookAt(agents...).agents() {
		if f.GetId() == findDisconnected {
			got = append(got, f.GetSubject())
		}
	}
	want := []string{"host clone of group g, agent clone-one", "host clone of group g, agent clone-two", "host localhost of group g, agent one"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("it finds %q, want %q", got, want)
	}
}

func TestAHostKeyInTwoPlacesIsFoundUntilItsAgentIsBanned(t *testing.T) {
	st := connected(agent("copied", "g", "a", time.Hour, time.Minute))
	l := lookAt(st, connected(agent("other", "g", "b", time.Hour, time.Minute)))
	l.Clashes = map[string]fleet.Clash{"copied": {At: noon}, "forgotten": {At: noon}}
	list := l.instances()
	if len(list) != 1 || list[0].GetSubject() != st.SPIFFE || !strings.Contains(list[0].GetFix(), "signet ban copied") {
		t.Errorf("%v", list)
	}
	l.Agents[0] = banned(st)
	if list := l.instances(); len(list) > 0 {
		t.Errorf("%v", list)
	}
}
