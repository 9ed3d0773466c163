package server_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"signet.example/ads"
	"signet.example/api"
)

// A session is told that it will be told, and of a draining proxy once nobody is sent
// there any more: not while a proxy that calls it has what sends it there.
func TestADrainingProxyIsToldWhenItsLastCallerHasLearnedOfIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry + shop)
	caller, callee := r.join("front"), r.join("back")
	front, _ := caller.session()
	back, down := callee.session()
	proxyOf := func(name string, state api.ProxyStatus_State, pid int64) *api.ProxyStatus {
		return &api.ProxyStatus{
			Name: name, VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "orders"}, Address: "127.0.0.9", Ports: []uint32{8080}, Healthy: true, State: state.Enum(), Pid: pid,
		}
	}
	said := make(chan map[string]int64, 16)
	go func() { // ends with the session
		for {
			m, err := down.Recv()
			if err != nil {
				return
			}
			if w, ok := m.GetMessage().(*api.SessionDown_Withdrawn); ok {
				said <- w.Withdrawn.GetPids()
			}
		}
	}()
	withdrawn := func(want map[string]int64, within time.Duration) bool {
		t.Helper()
		select {
		case got := <-said:
			if !maps.Equal(got, want) {
				t.Fatalf("told %v, want %v", got, want)
			}
			return true
		case <-time.After(within):
			return false
		}
	}
	back(&api.Report{Proxies: []*api.ProxyStatus{proxyOf("orders", api.ProxyStatus_READY, 7)}})
	if !withdrawn(nil, 5*time.Second) {
		t.Fatal("an agent does not know that it will be told")
	}
	web := caller.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	// version is of the caller's view, as soon as it has or has not the endpoint.
	version := func(has bool) string {
		web.await("a view", func(s *ads.Set, _ *api.View) bool { return slices.Contains(addresses(s), "127.0.0.9:8080") == has })
		web.mu.Lock()
		defer web.mu.Unlock()
		return web.last
	}
	follow := func(version string, proxies int32) {
		front(&api.Report{Views: []*api.ViewStatus{{VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}, Version: version, Proxies: proxies}}})
	}
	with := version(true)
	follow(with, 1)
	follow(with, 2) // reports of a session are taken one after the other: who has this one has heard of the first
	eventually(t, "the server knows who calls", func() bool {
		resp, err := r.admin.Agents(t.Context(), &api.AgentsRequest{})
		return err == nil && slices.ContainsFunc(resp.GetAgents(), func(a *api.AgentInfo) bool {
			return len(a.GetReport().GetViews()) == 1 && a.GetReport().GetViews()[0].GetProxies() == 2
		})
	})
	back(&api.Report{Proxies: []*api.ProxyStatus{proxyOf("orders", api.ProxyStatus_DRAINING, 7)}})
	without := version(false)
	if withdrawn(nil, 500*time.Millisecond) {
		t.Fatal("it is told although its caller is sent there")
	}
	if follow(without, 2); !withdrawn(map[string]int64{"orders": 7}, 5*time.Second) {
		t.Error("it is not told")
	}
	if back(&api.Report{}); !withdrawn(nil, 5*time.Second) {
		t.Error("it is told still when it is gone")
	}
}
