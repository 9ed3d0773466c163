package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"signet.example/api"
)

func TestProxiesAreToldByWhatTheyHaveAndWhatTheyRefused(t *testing.T) {
	node := &api.VirtualNodeRef{Mesh: "shop", Name: "web"}
	answer := func() *api.AgentsResponse {
		a := &api.AgentsResponse{Agents: []*api.AgentInfo{{
			Id: "h-1", Connected: true, State: api.AgentInfo_CONNECTED.Enum(), Report: &api.Report{PeerMode: api.Report_TASK.Enum(), Proxies: []*api.ProxyStatus{
				{Name: "good", VirtualNode: node, State: api.ProxyStatus_READY.Enum(), Config: api.ProxyStatus_SYNCED.Enum(), ConfigVersion: "0123456789abcdef"},
				{Name: "bad", VirtualNode: node, State: api.ProxyStatus_READY.Enum(), Config: api.ProxyStatus_REJECTED.Enum(), Rejected: []*api.ResourceStatus{
					{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Name: "lds_ingress", Message: "no such\nfilter"}, {Name: "another"},
				}},
				{Name: "ill", VirtualNode: node, State: api.ProxyStatus_READY.Enum(), Config: api.ProxyStatus_SYNCED.Enum(), Failing: []uint32{80, 8080}},
				{Name: "late", VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "orders"}, State: api.ProxyStatus_WAITING.Enum(), Reason: "no Binding fits"},
			}},
		}, {
			Id: "h-2", State: api.AgentInfo_AWAY.Enum(), Report: &api.Report{Proxies: []*api.ProxyStatus{
				{Name: "far", VirtualNode: node, State: api.ProxyStatus_READY.Enum(), Config: api.ProxyStatus_SYNCED.Enum()},
			}},
		}}}
		api.Reconcile(a)
		return a
	}
	for _, c := range []struct {
		node  string
		names []string
		want  []string
	}{
		{"", nil, []string{
			"PROXY  NODE         STATE    CONFIG    ACKNOWLEDGED  WHY",
			"late   shop/orders  waiting  -         -             no Binding fits",
			"bad    shop/web     ready    rejected  -             Listener lds_ingress: no such filter (and 1 more)",
			"far    shop/web     unknown  stale     -             its agent is away",
			"good   shop/web     ready    synced    -             -",
			"ill    shop/web     ready    synced    -             its application fails the health check of port 80, 8080",
		}},
		{"shop/orders", nil, []string{"PROXY  NODE         STATE    CONFIG  ACKNOWLEDGED  WHY", "late   shop/orders  waiting  -       -             no Binding fits"}},
		{"", []string{"good"}, []string{"PROXY  NODE      STATE  CONFIG  ACKNOWLEDGED  WHY", "good   shop/web  ready  synced  -             -"}},
	} {
		cmd, out := newProxies(), &bytes.Buffer{}
		cmd.SetOut(out)
		if err := showProxies(cmd, answer(), c.node, c.names); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimRight(out.String(), "\n"); got != strings.Join(c.want, "\n") {
			t.Errorf("node %q, names %q:\n%s", c.node, c.names, got)
		}
	}
	cmd, out := newProxies(), &bytes.Buffer{}
	cmd.SetOut(out)
	if err := errors.Join(cmd.Flags().Set("output", "wide"), showProxies(cmd, answer(), "", []string{"good", "far"})); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "h-1    task") || !strings.Contains(got, "h-2    host") {
		t.Errorf("an agent of a task is not told from that of a host:\n%s", got)
	}
	if err := showProxies(newProxies(), answer(), "", []string{"nobody"}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a proxy that is not there: %v", err)
	}
}
