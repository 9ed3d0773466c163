package fleet

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// contended is shared with a server that is always faster: each change is made twice, of
// which the second counts.
type contended struct {
	value watched.Value[*Known]
}

func (c *contended) Get() (*Known, <-chan struct{}) { return c.value.Get() }

func (c *contended) Update(f func(*Known) *Known) {
	c.value.Update(func(now *Known) *Known {
		f(now)
		return f(now)
	})
}

func theContended() *contended {
	c := &contended{}
	c.value.Set(&Known{})
	return c
}

func TestTwoServersOverOneRegistryAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := theContended()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var told [2]atomic.Int64
		var servers [2]*Endpoints
		for i := range servers {
			cfg := configOf(known)
			cfg.Changed = func() { told[i].Add(1) }
			servers[i] = NewEndpoints(cfg)
			go func() { _ = servers[i].Run(ctx) }()
		}
		one, two := servers[0], servers[1]
		agree := func(want int) {
			t.Helper()
			synctest.Wait()
			if one.Snapshot() != two.Snapshot() || two.Count() != want {
				t.Fatalf("%d endpoints at one server and %d at the other, want %d", one.Count(), two.Count(), want)
			}
		}
		agree(0)
		before := told[1].Load()
		one.Report(hostile("a"), reportOf(1, true))
		agree(1)
		if told[1].Load() != before+1 {
			t.Error("the other server does not know that something changed")
		}
		// Who is there first stays, whichever server he is connected to.
		thief := reportOf(1, true)
		thief.Proxies[0].VirtualNode = &api.VirtualNodeRef{Mesh: "m", Name: "another"}
		if why := two.Report(hostile("b"), thief)["p"]; !strings.Contains(why, "agent a since") {
			t.Errorf("refused as %q", why)
		}
		agree(1)
		if len(two.Refused()) != 1 || len(one.Refused()) != 1 {
			t.Errorf("refused at its own server: %v, at the other: %v", two.Refused(), one.Refused())
		}
		// An agent that comes back at the other server keeps its endpoints.
		one.Left("a")
		time.Sleep(30 * time.Second)
		two.Report(hostile("a"), reportOf(1, true))
		time.Sleep(time.Hour)
		agree(1)
		two.Left("a")
		time.Sleep(time.Hour)
		agree(0)
	})
}

func TestReportsToTwoServersAtOnceAreAllTaken(t *testing.T) {
	known := inMemory()
	servers := []*Endpoints{NewEndpoints(configOf(known)), NewEndpoints(configOf(known))}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() { servers[i%2].Report(hostile(fmt.Sprint(i)), reportOf(i, true)) })
	}
	all.Wait()
	for i := range 200 {
		if len(servers[0].Snapshot().Of(proxy.Node("m", fmt.Sprint(i)))) != 1 {
			t.Errorf("the report of agent %d is lost", i)
		}
	}
}
