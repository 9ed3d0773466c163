package views

import (
	"strings"
	"testing"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/proxy"
)

func TestHowFarAChangeHasComeIsByWhatAgentsSayThatTheirProxiesHave(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	s.groups["two"] = "front"
	node := proxy.Node("m", "a")
	one, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
	v.Rebuild(t.Context(), nil)
	says := func(agent string, f Following) {
		t.Helper()
		v.Reported(agent, []Following{f})
		v.hear(t.Context())
	}
	has := func(since uint64, agent string, want bool) {
		t.Helper()
		if got, _ := v.Reached(agent, node, since); got != want {
			t.Errorf("%s has it: %t", agent, got)
		}
	}
	old := Following{Node: node, Version: viewVersion(one.Set()), Proxies: 1}
	says("one", old)
	says("two", old)

	s.look.Model = storedOf(t, strings.Replace(manifests, "b.internal", "b.example", 1))
	since := v.Mark(t.Context())
	if calls(t, one) != "b.example" {
		t.Fatal("a mark is before what is stored is made")
	}
	has(since, "one", false)
	has(since, "two", false)
	has(since, "three", false) // it has no proxy
	fresh := Following{Node: node, Version: viewVersion(one.Set()), Proxies: 1}
	says("one", fresh)
	has(since, "one", true)
	has(since, "two", false)
	changed(t, s, v, "c.example") // what came later has it, too
	later := Following{Node: node, Version: viewVersion(one.Set()), Proxies: 1}
	says("two", later)
	has(since, "two", true)
	has(v.Mark(t.Context()), "one", false)

	// Two proxies of an agent in different shapes: the one that lags counts.
	v.Reported("two", []Following{later, old})
	has(since, "two", false)
	v.hear(t.Context())
	if !v.Settled(node) {
		t.Error("nothing is on its way")
	}
	v.Reported("one", []Following{later})
	if v.Settled(node) || !v.Settled(proxy.Node("m", "b")) {
		t.Error("what an agent said last was not followed, of this node alone")
	}
}

func TestWhatIsRefusedOfAChangeIsToldAndWhatWasRefusedBeforeIsNot(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	node := proxy.Node("m", "a")
	one := stand(t, v, anyShape, "one", "two")
	v.Rebuild(t.Context(), nil)
	answers(v, Following{Node: node, Version: viewVersion(one.Set()), Proxies: 1})
	rejected := func(agent string) []*api.ResourceStatus {
		_, list := v.Reached(agent, node, v.seq)
		return list
	}
	changed(t, s, v, "b.bad")
	f := refusing(one)
	v.Reported("one", []Following{f})
	if r := rejected("one"); len(r) != 1 || r[0].GetMessage() != "no" {
		t.Errorf("before it is withheld: %v", r)
	}
	refuse(t, s, v, f)
	v.Reported("one", []Following{{Node: node, Version: viewVersion(one.Set()), Proxies: 1}})
	v.Reported("two", []Following{{Node: node, Version: viewVersion(one.Set()), Proxies: 1}})
	if r := rejected("one"); len(r) != 1 || r[0].GetMessage() != "no" {
		t.Errorf("withheld: %v", r)
	}
	if r := rejected("two"); len(r) != 1 || r[0].GetMessage() != "refused at agent one: no" {
		t.Errorf("withheld from another: %v", r)
	}
	v.Reported("one", []Following{f}) // it has not taken what replaces that
	changed(t, s, v, "b.good")
	if r := rejected("one"); len(r) != 0 {
		t.Errorf("of what nobody sends any more: %v", r)
	}
}

// A9-42: of a listener or route whose name has where its proxy listens, others were said to have
// refused it, or not to be sent it, which have another in its place and run that.
func TestWhatProxiesOfOneShapeRefuseIsToldOfNoneThatHaveAnother(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	t.Cleanup(v.stop)
	node, other := proxy.Node("m", "a"), anyShape
	other.Bind = "127.0.0.3"
	one, two := stand(t, v, anyShape, "one"), stand(t, v, other, "two")
	v.Rebuild(t.Context(), nil)
	f := Following{Node: node, Version: viewVersion(one.Set()), Proxies: 1}
	answers(v, f)
	s.look.Model = storedOf(t, strings.Replace(manifests, "protocol: http}}]\n  backends", "protocol: http2}}]\n  backends", 1))
	v.Rebuild(t.Context(), nil)
	r := one.Set().Get(ads.ListenerType, "lds_ingress_127.0.0.2_80")
	f.Version, f.Rejected = viewVersion(one.Set()), []*api.ResourceStatus{{TypeUrl: r.Type, Name: r.Name, Version: r.Version, Message: "no"}}
	refuse(t, s, v, f)
	v.Reported("one", []Following{{Node: node, Version: viewVersion(one.Set()), Proxies: 1}})
	v.Reported("two", []Following{{Node: node, Version: viewVersion(two.Set()), Proxies: 1}})
	for agent, c := range map[string]struct {
		address string
		told    int
	}{"one": {"127.0.0.2", 1}, "two": {"127.0.0.3", 0}} {
		if _, list := v.Reached(agent, node, v.seq); len(list) != c.told {
			t.Errorf("who waits is told of %s: %v", agent, list)
		}
		report := v.Withheld(agent, &api.Report{Proxies: []*api.ProxyStatus{{VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "a"}, Address: c.address}}})
		if list := report.GetProxies()[0].GetRejected(); len(list) != c.told {
			t.Errorf("the proxy of %s: %v", agent, list)
		}
	}
}
