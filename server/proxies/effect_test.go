package proxies_test

import (
	"testing"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/proxies"
	"signet.example/store"
	"signet.example/xds/effect"
	"signet.example/xds/predict"
)

func TestWhatAChangeDoesIsToldWithTheProxiesThatAreServedAndWhatManyDoAlikeOnce(t *testing.T) {
	report := func(name string) *api.Report {
		return &api.Report{Proxies: []*api.ProxyStatus{{Name: name, VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "a"}}}}
	}
	shown := proxies.Proxies{Agents: func() []fleet.Status {
		return []fleet.Status{
			{Agent: store.Agent{ID: "here"}, State: api.AgentInfo_CONNECTED, Report: report("a-1")},
			{Agent: store.Agent{ID: "gone"}, State: api.AgentInfo_AWAY, Report: report("a-2")},
		}
	}}
	differ := []predict.Difference{{Request: predict.Request{Method: "GET", Scheme: "http", Authority: "shop.internal", Path: "/", Headers: map[string][]string{"x-a": {"1"}}}, Why: "its host is new"}}
	var all []effect.Effect
	for _, name := range []string{"a", "b"} {
		all = append(all, effect.Effect{Of: proxy.Node("m", name), Authorization: "enforce", Changed: []effect.Named{{Type: "t", Name: "r"}}, Requests: []effect.Requested{{Routes: "r", Differences: differ}}})
	}
	e, err := shown.Effect(all, 3)
	if err != nil {
		t.Fatal(err)
	}
	if n := e.GetNodes(); len(n) != 2 || len(n[0].GetProxies()) != 1 || n[0].GetProxies()[0] != "a-1" || len(n[1].GetProxies()) != 0 || n[0].GetResources()[0].GetAction() != "changed" || n[1].GetAuthorization() != "enforce" {
		t.Errorf("%v", n)
	}
	if r := e.GetRequests(); len(r) != 1 || len(r[0].GetFrom()) != 2 || r[0].GetReason() != "its host is new" || r[0].GetHeaders()[0].GetName() != "x-a" || e.GetLeftOut() != 3 {
		t.Errorf("%v", e)
	}
}
