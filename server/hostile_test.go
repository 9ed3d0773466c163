package server

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/store"
)

// These are about an agent that is not ours any more.

func hostile(id string) *caller {
	return &caller{id: spiffeid.RequireFromString("spiffe://test.example/signet/agent/" + id), agent: store.Agent{ID: id, Group: "g"}, remote: netip.MustParseAddr("127.0.0.1"), cancel: func(error) {}}
}

func accessOf(agents ...store.Agent) *access {
	return &access{roster: rosterOf(agents...), open: map[*caller]struct{}{}, shut: func(func(string) bool) {}}
}

// inNoStore keeps agents nowhere.
type inNoStore struct{}

func (inNoStore) Agents(context.Context) ([]store.Agent, error) { return nil, nil }
func (inNoStore) PutAgent(context.Context, store.Agent) error   { return nil }

func nowhere([]string) string { return "" }

// rosterOf is of agents that joined.
func rosterOf(agents ...store.Agent) *fleet.Roster {
	r := fleet.NewRoster(inNoStore{}, nowhere)
	for _, a := range agents {
		put(r, a)
	}
	return r
}

// put has an agent in the place of what it was.
func put(r *fleet.Roster, a store.Agent) { _ = r.Enrol(context.Background(), a) } // inNoStore has no errors

// The review for a ban may be over when the stream of before is entered.
func TestAStreamThatWasLetInBeforeABanAndEnteredAfterItEnds(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	ended := 0
	c.cancel = func(error) { ended++ }
	put(a.roster, store.Agent{ID: "x", Group: "g", Banned: true})
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
	a.model = func() *model {
		a.review(func(string, proxy.Ref) bool { return false }) // of the next model, right after this one was read
		return boundTo("n")
	}
	if err := (follower{c, a}).Follow(proxy.Node("m", "n")); err != nil {
		t.Fatal(err)
	}
	if ended == 0 {
		t.Error("the stream goes on")
	}
}

// boundTo is a model in which group g may host the virtual node.
func boundTo(node string) *model {
	grant, _ := groups.NewGrant(identity.Binding{Name: "b", Group: "g", VirtualNode: identity.VirtualNodeName{Mesh: "m", Name: node}}, 1, testTD) // the names are good
	return &model{groups: groups.Groups{}.With(grant)}
}

func TestStreamsAreReviewedWhenABindingOrAnAgentChangedAndNotOtherwise(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	looked := 0 // each look finds that it may not
	c.cancel = func(error) { looked++ }
	a.keep(c)
	ref := proxy.Node("m", "another")
	c.node.Store(&ref)
	m := boundTo("n")
	for _, step := range []struct {
		what string
		does func()
		want int
	}{
		{"the first time", func() {}, 1},
		{"nothing changed", func() {}, 1},
		{"something else changed", func() { next := *m; next.revision++; m = &next }, 1},
		{"a binding changed", func() { m = boundTo("n2") }, 2},
		{"an agent joined", func() { put(a.roster, store.Agent{ID: "y", Group: "g"}) }, 3},
		{"nothing changed since", func() {}, 3},
	} {
		step.does()
		if a.follow(m); looked != step.want {
			t.Errorf("%s: %d looks, want %d", step.what, looked, step.want)
		}
	}
}

// An agent is let in as one of a group, and is of another before it asks for a view.
func TestAStreamOfAnAgentThatIsOfAnotherGroupMeanwhileIsNotGivenAView(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	a.keep(c)
	put(a.roster, store.Agent{ID: "x", Group: "other"})
	a.model = func() *model { return boundTo("n") }
	a.Review() // before it has a node
	if err := (follower{c, a}).Follow(proxy.Node("m", "n")); !errors.Is(err, fault.Denied) {
		t.Errorf("it is answered %v", err)
	}
}
