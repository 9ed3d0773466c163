package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/shared"
)

func TestAnAddressIsAnAgentsIfItConnectsFromThere(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"10.0.0.1", "10.0.0.1"}: true, {"127.0.0.2", "127.0.0.1"}: true, {"::1", "127.0.0.1"}: true,
		{"127.0.0.1", "10.0.0.1"}: false, // everyone's own
		{"10.0.0.2", "10.0.0.1"}:  false, {"10.0.0.1", "127.0.0.1"}: false,
		{"0.0.0.0", "0.0.0.0"}: false, {"::", "::"}: false, {"224.0.0.1", "224.0.0.1"}: false,
	} {
		if got := addressOfAgent(netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])); got != want {
			t.Errorf("%s of an agent at %s: %t", pair[0], pair[1], got)
		}
	}
	if addressOfAgent(netip.Addr{}, netip.Addr{}) {
		t.Error("no address is an address")
	}
}

// fileAt is what the file at path has.
func fileAt(t *testing.T, path string) *shared.File[*Known] {
	t.Helper()
	f, err := OpenFile(path, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// registryOf has one proxy of each of n virtual nodes, each of an agent of its own.
func registryOf(t *testing.T, n int, clock func() time.Time) *Endpoints {
	t.Helper()
	return registryIn(t, inMemory(), n, clock)
}

func registryIn(t *testing.T, known shared.Value[*Known], n int, clock func() time.Time) *Endpoints {
	t.Helper()
	cfg := configOf(known)
	cfg.Clock = clock
	e := NewEndpoints(cfg)
	for i := range n {
		e.Report(hostile(fmt.Sprint(i)), reportOf(i, true))
	}
	if e.Count() != n {
		t.Fatalf("%d endpoints, want %d", e.Count(), n)
	}
	return e
}

func reportOf(i int, healthy bool) *api.Report {
	return &api.Report{Proxies: []*api.ProxyStatus{{
		Name: "p", VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: fmt.Sprint(i)}, Address: "127.0.0.1",
		Ports: []uint32{uint32(1 + i)}, State: api.ProxyStatus_READY.Enum(), Healthy: healthy, //nolint:gosec // a few
	}}}
}

func TestNothingIsDoneAboutEndpointsWhileNothingIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64 // at the clock, without which nothing is found to be due
		e := registryOf(t, 10_000, func() time.Time { looks.Add(1); return time.Now() })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = e.Run(ctx) }()
		time.Sleep(time.Minute) // what the reports left to do
		before, picture := looks.Load(), e.Snapshot()
		time.Sleep(24 * time.Hour)
		if did := looks.Load() - before; did != 0 || e.Snapshot() != picture {
			t.Errorf("in a day in which nothing happened it woke and looked %d times", did)
		}
		before = looks.Load()
		e.Left("7")
		time.Sleep(time.Minute - time.Second)
		if e.Count() != 10_000 {
			t.Error("the grace ended early")
		}
		time.Sleep(2 * time.Second)
		if e.Count() != 9_999 {
			t.Error("the grace did not end")
		}
		time.Sleep(24 * time.Hour)
		if did := looks.Load() - before; did > 20 {
			t.Errorf("one agent left, and it looked %d times", did)
		}
	})
}

func TestAnAgentThatCameBackInTimeKeepsItsEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := registryOf(t, 3, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = e.Run(ctx) }()
		e.Left("0")
		time.Sleep(30 * time.Second)
		e.Left("1")
		e.Report(hostile("0"), reportOf(0, true))
		time.Sleep(20 * time.Second)
		e.Left("0") // its second grace is not shortened by the first
		time.Sleep(50 * time.Second)
		if at := e.Snapshot(); at.Of(proxy.Node("m", "0")) == nil || at.Of(proxy.Node("m", "1")) != nil || at.Of(proxy.Node("m", "2")) == nil {
			t.Error("want 0, which came back, and 2, which never left")
		}
		time.Sleep(20 * time.Second)
		if e.Count() != 1 {
			t.Errorf("%d endpoints, want that of 2", e.Count())
		}
	})
}

func TestAnAgentThatComesAndGoesAddsNothingForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := registryOf(t, 3, time.Now)
		e.Left("1") // nothing is at an end before it
		for range 20_000 {
			e.Left("0")
			e.Report(hostile("0"), reportOf(0, true))
		}
		e.Left("0")
		graces := 0
		for _, n := range e.Snapshot().leaving.All() {
			if graces++; e.Snapshot().of(n) != n {
				t.Errorf("a grace of %s that is not its own", n.Agent)
			}
		}
		if graces != 2 {
			t.Errorf("%d graces are kept for two agents", graces)
		}
	})
}

func TestWhatIsRegisteredIsThereAfterARestartThoughItIsNotWrittenEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		file := fileAt(t, path)
		e := registryIn(t, file, 3, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		go func() { _ = file.Run(ctx); close(ended) }()
		writes := 0
		var last os.FileInfo
		for i := range 50 {
			e.Report(hostile("0"), reportOf(0, i%2 == 0))
			synctest.Wait()
			now, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if last == nil || !os.SameFile(now, last) {
				writes++
			}
			last = now
		}
		if writes > 2 {
			t.Errorf("written %d times at once", writes)
		}
		cancel()
		<-ended
		cfg := e.cfg
		cfg.Shared = fileAt(t, path)
		again := NewEndpoints(cfg)
		if again.Count() != 3 || again.Snapshot().Of(proxy.Node("m", "0"))[0].Healthy {
			t.Error("the restarted server does not know what was reported last")
		}
	})
}

func TestAHealthChangeIsTheSameWorkAmongAnyNumberOfEndpoints(t *testing.T) {
	work := func(n int) float64 {
		e := registryOf(t, n, time.Now)
		healthy := true
		return testing.AllocsPerRun(100, func() {
			before := e.Snapshot()
			healthy = !healthy
			e.Report(hostile("7"), reportOf(7, healthy))
			if touched := e.Snapshot().Differ(before); !slices.Equal(touched, []proxy.Ref{proxy.Node("m", "7")}) {
				t.Fatalf("%v differ", touched)
			}
			var others int // of which something was made anew
			for range e.Snapshot().by.Differ(before.by) {
				others++
			}
			if others != 1 {
				t.Fatalf("%d virtual nodes were listed again", others)
			}
		})
	}
	few, many := work(1000), work(20_000)
	t.Logf("allocations: %.0f among 1,000, %.0f among 20,000", few, many)
	if many > 2*few {
		t.Errorf("%.0f allocations among 20,000 endpoints, %.0f among 1,000", many, few)
	}
}

func TestAnEndpointThatNothingGrantsAnyMoreGoesAtOnce(t *testing.T) {
	e := registryOf(t, 10, time.Now)
	e.cfg.Hosts = allBut("3")
	e.Review()
	if e.Count() != 9 || e.Snapshot().Of(proxy.Node("m", "3")) != nil {
		t.Error("it is still there")
	}
	before := e.Snapshot()
	if e.Review(); e.Snapshot() != before {
		t.Error("nothing changed, and the picture is another one")
	}
}

// allBut may host everything, except this agent.
type allBut string

func (a allBut) MayHost(agent string, _ proxy.Ref) (string, bool) {
	return "group", agent != string(a)
}

// MayListen implements Hosts.
func (a allBut) MayListen(string, netip.Addr) bool { return false }

// within lets every agent host everything, in these ranges too.
type within []string

func (within) MayHost(string, proxy.Ref) (string, bool) { return "group", true }

func (w within) MayListen(_ string, at netip.Addr) bool {
	return slices.ContainsFunc(w, func(p string) bool { return netip.MustParsePrefix(p).Contains(at) })
}

func TestAHostHasAnAddressOfItsGroupsRangesUnlessItIsAnotherHostsOwn(t *testing.T) {
	known := inMemory()
	cfg := configOf(known)
	cfg.Hosts = within{"10.1.0.0/16", "fd00:1::/64"}
	e := NewEndpoints(cfg)
	r := sessionsAt(known, "one", e)
	s := streamOf(r, "a", "its session")
	r.enter(s)
	at := func(agent, remote string) Peer {
		p, now := hostile(agent), r.known()
		p.session = now.sessionOf(agent)
		p.Remote = netip.MustParseAddr(remote)
		return p
	}
	one := func(name, node, address string) *api.ProxyStatus {
		return &api.ProxyStatus{
			Name: name, VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: node}, Address: address, Ports: []uint32{80}, State: api.ProxyStatus_READY.Enum(), Healthy: true,
		}
	}
	// Three services on one port, at three addresses of one host, and one that is nowhere.
	unserved := e.Report(at("a", "10.1.0.1"), &api.Report{Proxies: []*api.ProxyStatus{
		one("own", "web", "10.1.0.1"), one("second", "orders", "10.1.0.2"), one("six", "users", "fd00:1::2"), one("outside", "pay", "10.2.0.1"),
	}})
	if len(unserved) != 1 || !strings.Contains(unserved["outside"], "nor in a range of group group") || e.Count() != 3 {
		t.Fatalf("%d endpoints, unserved: %v", e.Count(), unserved)
	}
	// Another host of the group cannot have what is taken, also by a range; whose own address it is can.
	if got := e.Report(at("b", "10.1.0.9"), &api.Report{Proxies: []*api.ProxyStatus{one("p", "pay", "10.1.0.1"), one("q", "pay", "10.1.0.2")}}); len(got) != 2 {
		t.Errorf("the addresses of another host, by a range: %v", got)
	}
	if got := e.Report(at("c", "10.1.0.2"), &api.Report{Proxies: []*api.ProxyStatus{one("p", "pay", "10.1.0.2")}}); len(got) != 0 {
		t.Errorf("its own address: %v", got)
	}
	if list := e.Snapshot().Of(proxy.Node("m", "orders")); list != nil {
		t.Errorf("who had it by a range has it still: %+v", list[0])
	}
	if why := e.Unserved("a")["second"]; !strings.Contains(why, "the own address of agent c") {
		t.Errorf("%q", why)
	}
	// Of one that has no session nothing is told: nothing would end that.
	r.leave(s)
	if e.Report(at("d", "fd00:1::2"), &api.Report{Proxies: []*api.ProxyStatus{one("p", "pay", "fd00:1::2")}}); len(e.Unserved("a")) > 0 || e.Count() != 3 {
		t.Errorf("%d endpoints; of one that has left: %v", e.Count(), e.Unserved("a"))
	}
	// The range goes, and who was there by it; own addresses stay.
	cfg.Hosts = everything{}
	e = NewEndpoints(cfg)
	if e.Review(); e.Count() != 3 {
		t.Errorf("%d endpoints without the range", e.Count())
	}
}

// A9-30: a host of a group with ranges was nearly all of the endpoints that callers choose from.
func TestOneHostIsNotNearlyAllOfAVirtualNodesProxies(t *testing.T) {
	cfg := configOf(inMemory())
	cfg.Hosts = within{"127.0.0.0/8"}
	e := NewEndpoints(cfg)
	report := func(agent string, names ...int) map[string]string {
		r := &api.Report{}
		for _, n := range names {
			r.Proxies = append(r.Proxies, &api.ProxyStatus{
				Name: fmt.Sprint(n), VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "orders"}, Address: fmt.Sprintf("127.%s.%d.%d", agent, n/200, 1+n%200), Ports: []uint32{80}, State: api.ProxyStatus_READY.Enum(), Healthy: true,
			})
		}
		return e.Report(hostile(agent), r)
	}
	want := func(agent string, names ...string) {
		t.Helper()
		var got []string
		for _, o := range e.Snapshot().OfAgent(agent) {
			got = append(got, o.Proxy)
		}
		if !slices.Equal(got, names) {
			t.Errorf("callers are sent to %v of agent %s, want %v", got, agent, names)
		}
	}
	report("1", 7)
	many := make([]int, 400)
	for n := range many {
		many[n] = 400 + n
	}
	why := report("2", many...)
	want("1", "7")
	want("2", "400", "401", "402", "403")
	if len(why) != 396 || !strings.Contains(why["404"], "has 4 other proxies of m/orders") || len(e.Refused()) != 396 {
		t.Errorf("%d are told that they are not served: %s", len(why), why["404"])
	}
	report("2", 1, 400, 401, 402, 403) // who is served stays, whatever comes before it
	want("2", "400", "401", "402", "403")
	report("2", 1, 401, 402, 403)
	want("2", "1", "401", "402", "403")

	// What the release before registered without a bound is within it at the next report.
	cfg.Shared.Update(func(k *Known) *Known {
		r := k.endpoints()
		for n := range 9 {
			r = r.put(&Endpoint{Agent: "3", Proxy: fmt.Sprint(n), Mesh: "m", Node: "orders", Address: fmt.Sprintf("127.3.0.%d", 1+n), Ranged: true, Ports: []uint32{80}, Healthy: true})
		}
		return k.withEndpoints(r)
	})
	report("3", 0, 1, 2, 3, 4, 5, 6, 7, 8)
	want("3", "5", "6", "7", "8")
}

func TestAProxyThatIsNotBoundIsToldTheGroupThatItsHostIsInNow(t *testing.T) {
	e := registryOf(t, 1, time.Now)
	e.cfg.Hosts = allBut("0")
	peer := hostile("0")
	peer.Agent.Group = "before"
	e.Report(peer, reportOf(0, true))
	refused := e.Refused()
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, `"group"`) || !strings.Contains(refused[0].Fix, "Binding of group group,") {
		t.Errorf("refused: %+v", refused)
	}
}
