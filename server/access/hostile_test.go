package access

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/proxy"
	"signet.example/server/conns"
	"signet.example/server/fault"
	"signet.example/server/groups"
	"signet.example/server/roster"
	"signet.example/store"
)

// These are about an agent that is not ours any more.

func hostile(id string) *Caller {
	return &Caller{ID: spiffeid.RequireFromString("spiffe://test.example/signet/agent/" + id), Agent: store.Agent{ID: id, Group: "g"}, Remote: netip.MustParseAddr("127.0.0.1"), cancel: func(error) {}}
}

func accessOf(agents ...store.Agent) *Access {
	a := New(Config{Roster: rosterOf(agents...), Principal: alone})
	a.Connections = noConnections{}
	return a
}

// noConnections are there.
type noConnections struct{}

func (noConnections) Verified(net.Addr, conns.Caller) {}
func (noConnections) Shut(func(agent string) bool)    {}

// inNoStore keeps agents nowhere.
type inNoStore struct{}

func (inNoStore) Agents(context.Context) ([]store.Agent, error) { return nil, nil }
func (inNoStore) PutAgent(context.Context, store.Agent) error   { return nil }
func (inNoStore) Joined() (uint64, <-chan struct{})             { return 0, nil }

func nowhere([]string) string { return "" }

func alone(string, []string) string { return "" }

func good(string, []string) error { return nil }

// rosterOf is of agents that joined.
func rosterOf(agents ...store.Agent) *roster.Roster {
	r := roster.New(roster.Config{Store: inNoStore{}, Place: nowhere, Principal: alone, Takes: good})
	for _, a := range agents {
		put(r, a)
	}
	return r
}

// put has an agent in the place of what it was.
func put(r *roster.Roster, a store.Agent) { _ = r.Enrol(context.Background(), a) } // inNoStore has no errors

// The review for a ban may be over when the stream of before is entered.
func TestAStreamThatWasLetInBeforeABanAndEnteredAfterItEnds(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	ended := 0
	c.cancel = func(error) { ended++ }
	put(a.cfg.Roster, store.Agent{ID: "x", Group: "g", Banned: true})
	a.review(everythingBound)
	a.keep(c)
	if ended == 0 {
		t.Error("the stream goes on")
	}
}

func everythingBound(string, proxy.Ref) bool { return true }

// The binding is there when it is asked for, and gone before the stream has its view.
func TestAStreamWhoseBindingGoesWhileItIsGivenItsViewEnds(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	ended := 0
	c.cancel = func(error) { ended++ }
	a.keep(c)
	a.cfg.Hosts = func() groups.Hosts {
		a.review(func(string, proxy.Ref) bool { return false }) // of the next model, right after this one was read
		return boundTo("n").Hosts
	}
	if err := (Follower{c, a}).Follow(proxy.Node("m", "n")); err != nil {
		t.Fatal(err)
	}
	if ended == 0 {
		t.Error("the stream goes on")
	}
}

// boundTo are groups of which g may host the virtual node.
func boundTo(node string) groups.Groups {
	grant, _ := groups.NewGrant(identity.Binding{Name: "b", Group: "g", VirtualNode: identity.VirtualNodeName{Mesh: "m", Name: node}}, 1, spiffeid.RequireTrustDomainFromString("test.example")) // the names are good
	return groups.Groups{}.With(grant)
}

func TestStreamsAreReviewedWhenABindingOrAnAgentChangedAndNotOtherwise(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	looked := 0 // each look finds that it may not
	c.cancel = func(error) { looked++ }
	a.keep(c)
	ref := proxy.Node("m", "another")
	c.node.Store(&ref)
	now := boundTo("n")
	a.cfg.Hosts = func() groups.Hosts { return now.Hosts }
	entry, err := groups.NewGrant(identity.Entry{Name: "e", Group: "g"}, 1, spiffeid.RequireTrustDomainFromString("test.example"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		does func()
		want int
	}{
		{"the first time", func() {}, 1},
		{"nothing changed", func() {}, 1},
		{"something else changed", func() { now = now.With(entry) }, 1},
		{"a binding changed", func() { now = boundTo("n2") }, 2},
		{"an agent joined", func() { put(a.cfg.Roster, store.Agent{ID: "y", Group: "g"}) }, 3},
		{"nothing changed since", func() {}, 3},
	} {
		step.does()
		if a.Review(); looked != step.want {
			t.Errorf("%s: %d looks, want %d", step.what, looked, step.want)
		}
	}
}

// An agent is let in as one of a group, and is of another before it asks for a view.
func TestAStreamOfAnAgentThatIsOfAnotherGroupMeanwhileIsNotGivenAView(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	a.keep(c)
	put(a.cfg.Roster, store.Agent{ID: "x", Group: "other"})
	a.cfg.Hosts = func() groups.Hosts { return boundTo("n").Hosts }
	a.Review() // before it has a node
	if err := (Follower{c, a}).Follow(proxy.Node("m", "n")); !errors.Is(err, fault.Denied) {
		t.Errorf("it is answered %v", err)
	}
}
