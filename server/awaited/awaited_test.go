package awaited

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/store"
)

type everywhere struct{}

func (everywhere) MayHost(string, proxy.Ref) (string, bool) { return "group", true }
func (everywhere) MayListen(string, netip.Addr) bool        { return false }

func TestANodeIsAwaitedUntilAProxyOfItIsHealthyAndNeverAgain(t *testing.T) {
	web, other := proxy.Node("shop", "web"), proxy.Node("shop", "other")
	at := func(state api.ProxyStatus_State, failing ...uint32) *api.Report {
		return &api.Report{Proxies: []*api.ProxyStatus{{
			Name: "web", VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}, Address: "127.0.0.1", Ports: []uint32{80},
			State: state.Enum(), Failing: failing, Healthy: state == api.ProxyStatus_READY,
		}}}
	}
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	e := fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: everywhere{}, Clock: time.Now})
	nodes := (*Nodes)(nil).With(web).With(other)
	for i, step := range []struct {
		report *api.Report
		awaits bool
	}{
		{&api.Report{}, true},
		{at(api.ProxyStatus_STARTING), true},
		{at(api.ProxyStatus_READY, 80), true}, // its application is not there
		{at(api.ProxyStatus_READY), false},
		{at(api.ProxyStatus_READY, 80), false},
		{&api.Report{}, false}, // it is gone
	} {
		e.Report(fleet.Peer{Agent: store.Agent{ID: "here"}, Remote: netip.MustParseAddr("127.0.0.1")}, step.report)
		if nodes.Awaits(web, e.Snapshot().Ready) != step.awaits {
			t.Errorf("step %d: it is awaited: %v", i, !step.awaits)
		}
		nodes = nodes.Arrived(e.Snapshot().Ready)
	}
	if list := slices.Collect(nodes.All()); !slices.Equal(list, []proxy.Ref{other}) || nodes.Arrived(e.Snapshot().Ready) != nodes {
		t.Errorf("awaited are %v", list)
	}
}

func TestWhatIsAwaitedOutlivesTheServerAndALostFileAwaitsNothing(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "awaited.json"), slog.New(slog.DiscardHandler)
	f, err := OpenFile(path, log)
	if err != nil || f.Load().Has(proxy.Node("shop", "web")) {
		t.Fatal(f.Load(), err)
	}
	gone := proxy.Node("shop", "gone")
	f.Update(func(a *Nodes) *Nodes {
		return a.With(proxy.Node("shop", "web")).With(proxy.For("shop", "edge", true)).With(gone).Without(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(path, log)
	if list := slices.Collect(again.Load().All()); err != nil || len(list) != 2 || !slices.Equal(list, slices.Collect(f.Load().All())) {
		t.Errorf("%v, %v", list, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken, err := OpenFile(path, log); err == nil || len(slices.Collect(broken.Load().All())) > 0 {
		t.Errorf("of a broken file: %v, %v", broken.Load(), err)
	}
}
