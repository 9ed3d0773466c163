package relay

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"signet.example/agent/svids"
	"signet.example/proxy"
)

// stamped remembers what it was told, in its order.
type stamped struct {
	decided
	all [][]string
}

func (s *stamped) Stamp(_ any, revisions []string) { s.all = append(s.all, revisions) }

// Until every proxy has the new routes, requests come stamped with the old revision.
func TestTheRevisionOfTheRoutesBeforeIsKeptWithTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stamped{}
		l := &subscription{policies: d, served: func() {}}
		d.loaded.Set([]string{"1", "2"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			l.release(ctx)
			close(done)
		}()
		for _, revision := range []string{"1", "2"} {
			l.pending.Set(&routing{revision: revision})
			synctest.Wait()
		}
		cancel()
		<-done
		if len(d.all) != 2 || !slices.Equal(d.all[1], []string{"1", "2"}) {
			t.Errorf("stamped %v", d.all)
		}
	})
}

// An agent that is told to stop while its authz is not there, or has not loaded what routes are stamped with.
func TestASubscriptionWhosePolicyIsNotLoadedEndsWithItsAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &subscription{policies: &stamped{}, served: func() {}}
		ctx, cancel := context.WithCancel(t.Context())
		l.pending.Set(&routing{revision: "1"})
		done := make(chan struct{})
		go func() { defer close(done); l.release(ctx) }()
		synctest.Wait()
		cancel()
		<-done
		if l.released.Load() != nil {
			t.Error("it was released")
		}
	})
}

// A server is told of so many views: those that any local process may make up come last.
func TestViewsOfProxiesThatTheAgentRunsAreToldFirst(t *testing.T) {
	views := map[viewKey]*View{}
	for _, own := range []string{"", "web", "api"} {
		views[viewKey{sub: subscriptionKey{ref: proxy.Node("m", "a"+own)}, own: own}] = &View{as: svids.Name{Entry: own}}
	}
	list := inOrder(views)
	if last := list[len(list)-1]; len(list) != 3 || last.as.Entry != "" {
		t.Errorf("%d views, the last one of %q", len(list), last.as.Entry)
	}
}
