package views

import (
	"strings"
	"testing"

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
	one, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
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
