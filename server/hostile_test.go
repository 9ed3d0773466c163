package server

import (
	"context"
	"net/netip"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/ordered"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/store"
)

// These are about an agent that is not ours any more.

func hostile(id string) *caller {
	return &caller{id: spiffeid.RequireFromString("spiffe://test.example/signet/agent/" + id), agent: store.Agent{ID: id, Group: "g"}, remote: netip.MustParseAddr("127.0.0.1"), cancel: func(error) {}}
}

func accessOf(agents ...store.Agent) *access {
	return &access{roster: rosterOf(agents...), open: map[*caller]struct{}{}}
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

func everythingBound(string, string, string) bool { return true }

// The binding is there when it is asked for, and gone before the stream has its view.
func TestAStreamWhoseBindingGoesWhileItIsGivenItsViewEnds(t *testing.T) {
	a := accessOf(store.Agent{ID: "x", Group: "g"})
	c := hostile("x")
	ended := 0
	c.cancel = func(error) { ended++ }
	a.keep(c)
	v := &views{access: a, model: func() *model {
		a.review(func(string, string, string) bool { return false }) // of the next model, right after this one was read
		var hosts ordered.Map[hostRef, struct{}]
		return &model{hosts: ordered.Map[proxy.Ref, ordered.Map[hostRef, struct{}]]{}.With(proxy.Node("m", "n"), hosts.With(hostRef{"g", "b"}, struct{}{}))}
	}}
	if _, err := v.find(c, &corev3.Node{Id: "mesh/m/virtualNode/n"}); err == nil {
		t.Fatal("a node without a shape was given a view")
	}
	if ended == 0 {
		t.Error("the stream goes on")
	}
}
