package proxies_test

import (
	"errors"
	"strings"
	"testing"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/proxies"
	"signet.example/store"
)

func TestOfEachResourceOfAProxyItIsToldWhetherTheProxyHasIt(t *testing.T) {
	g := graphOf(t, "shop", "web")
	var agents []fleet.Status
	shown := proxies.Proxies{Config: configOf, Agents: func() []fleet.Status { return agents }}
	ref := &api.VirtualNodeRef{Mesh: "shop", Name: "web"}
	status := func(p *api.ProxyStatus) {
		agents = []fleet.Status{{Agent: store.Agent{ID: "a1"}, State: api.AgentInfo_CONNECTED, Report: &api.Report{Proxies: []*api.ProxyStatus{p}}}}
	}
	ask := func(req *api.ProxyConfigRequest) string {
		t.Helper()
		answer, err := shown.Configs(g, req)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, p := range answer.GetProxies() {
			for _, r := range p.GetResources() {
				text += " " + r.GetTypeUrl() + "/" + r.GetName() + "=" + r.GetState() + r.GetMessage()
			}
		}
		return strings.TrimSpace(text)
	}
	status(&api.ProxyStatus{
		Name: "web-1", VirtualNode: ref, Address: "127.0.0.9",
		Types:    []*api.TypeStatus{{TypeUrl: "a.Cluster", Version: "2", Acknowledged: "2"}, {TypeUrl: "a.Listener", Version: "2", Acknowledged: "1"}},
		Rejected: []*api.ResourceStatus{{TypeUrl: "a.Cluster", Name: "y", Version: "v", Message: " no"}, {TypeUrl: "a.Cluster", Name: "x", Version: "older"}},
	})
	want := "a.Cluster/x=acknowledged a.Cluster/y=rejected no a.Listener/x=pending a.Listener/y=pending"
	for _, id := range []string{"web-1", "shop/web", "web", "mesh/shop/virtualNode/web"} {
		if got := ask(&api.ProxyConfigRequest{Id: id}); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if got := ask(&api.ProxyConfigRequest{Id: "web-1", Type: "lds", Name: "y"}); got != "a.Listener/y=pending" {
		t.Error(got)
	}
	status(&api.ProxyStatus{
		Name: "web-1", VirtualNode: ref, Address: "127.0.0.9", Types: []*api.TypeStatus{{TypeUrl: "a.Listener", Version: "2", Acknowledged: "2"}},
		LeftOut: []*api.ResourceStatus{{TypeUrl: "a.Listener", Name: "y", Message: " taken"}},
	})
	if got := ask(&api.ProxyConfigRequest{Id: "web-1", Type: "lds"}); got != "a.Listener/x=acknowledged a.Listener/y=left out taken" {
		t.Error(got)
	}
	status(&api.ProxyStatus{Name: "web-1", VirtualNode: ref, Address: "127.0.0.9"}) // by an agent of the release before
	if got := ask(&api.ProxyConfigRequest{Id: "web-1", Name: "x"}); got != "a.Cluster/x=unknown a.Listener/x=unknown" {
		t.Error(got)
	}
	for text, req := range map[string]*api.ProxyConfigRequest{
		`no proxy, virtual node or gateway "other": agents report web-1`: {Id: "other"},
		`no type "secret"`:                 {Id: "web-1", Type: "secret"},
		"no resource of that type or name": {Id: "web-1", Name: "z"},
	} {
		_, err := shown.Configs(g, req)
		if err == nil || !strings.Contains(err.Error(), text) || !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Invalid) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}
