package views

import (
	"net/netip"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/store"
)

// everywhere lets every agent host everything.
type everywhere struct{}

func (everywhere) MayHost(string, proxy.Ref) (string, bool) { return "group", true }

func (everywhere) MayListen(string, netip.Addr) bool { return true }

func TestAnEndpointIsGoneOnceAllWhoCallItHaveTakenThat(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	endpoints := fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: everywhere{}, Clock: time.Now})
	b, local := proxy.Node("m", "b"), netip.MustParseAddr("127.0.0.1")
	serves := func(addresses ...string) {
		report := &api.Report{}
		for _, a := range addresses {
			report.Proxies = append(report.Proxies, &api.ProxyStatus{
				Name: a, VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "b"}, Address: a, Ports: []uint32{80}, Healthy: true, State: api.ProxyStatus_READY.Enum(),
			})
		}
		if refused := endpoints.Report(fleet.Peer{Agent: store.Agent{ID: "two"}, Remote: local}, report); len(refused) > 0 {
			t.Fatal(refused)
		}
		s.look.Endpoints = endpoints.Snapshot()
	}
	serves("127.0.0.8", "127.0.0.9")
	view, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
	v.Rebuild(t.Context(), nil)
	a := proxy.Node("m", "a")
	has := func(agent, version string, proxies int) {
		v.Reported(agent, []Following{{Node: a, Version: version, Proxies: proxies}})
	}
	first := viewVersion(view.Set())
	has("one", first, 2)
	want := func(gone bool, when string) {
		t.Helper()
		if got := v.Without(b, "127.0.0.9"); got != gone {
			t.Errorf("%s: gone is %t", when, got)
		}
	}
	want(false, "while it is registered")
	serves("127.0.0.8")
	want(false, "before views are made without it")
	heard := v.Heard()
	v.Rebuild(t.Context(), nil)
	second := viewVersion(view.Set())
	if first == second {
		t.Fatal("the caller's view is the same")
	}
	want(false, "before a proxy has taken it")
	has("one", second, 2)
	select {
	case <-heard:
	default:
		t.Error("nobody is told that an agent has reported")
	}
	want(true, "once all proxies have")
	has("other", first, 1)
	want(false, "while those of another host have not")
	has("other", first, 0)
	want(true, "when that has no proxies any more")
	has("other", "unheard of", 1)
	want(false, "while those have what nobody knows")
	v.Left("other", func() bool { return true })
	want(false, "when that agent is connected again")
	v.Left("other", func() bool { return false })
	want(true, "when it is not")
	serves("127.0.0.8", "127.0.0.7")
	v.Rebuild(t.Context(), nil)
	want(true, "whatever else changed since")
	serves("127.0.0.7", "127.0.0.9")
	v.Rebuild(t.Context(), nil)
	want(false, "when it is back")
	if !v.Without(b, "127.0.0.66") {
		t.Error("where nobody ever was, somebody is sent to")
	}
}

func TestCallersAreToldOfAnApplicationThatFailsAtItsPort(t *testing.T) {
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	endpoints := fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: everywhere{}, Clock: time.Now})
	b, local := proxy.Node("m", "b"), netip.MustParseAddr("127.0.0.1")
	if refused := endpoints.Report(fleet.Peer{Agent: store.Agent{ID: "two"}, Remote: local}, &api.Report{Proxies: []*api.ProxyStatus{{
		Name: "p", VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "b"}, Address: "127.0.0.1", Ports: []uint32{80, 90}, Failing: []uint32{90}, Healthy: true, State: api.ProxyStatus_READY.Enum(),
	}}}); len(refused) > 0 {
		t.Fatal(refused)
	}
	in := nodeInputs{endpoints: endpoints.Snapshot()}
	for port, healthy := range map[uint32]bool{80: true, 90: false} {
		if list := in.at(b, port); len(list) != 1 || list[0].Healthy != healthy || list[0].Port != port {
			t.Errorf("port %d: %+v", port, list)
		}
	}
}
