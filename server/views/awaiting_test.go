package views

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/awaited"
	"signet.example/server/fleet"
	"signet.example/store"
)

const (
	aGroup    = manifests + "---\napiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\n"
	bound     = aGroup + "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: one}\nspec: {group: hosts, mesh: m, virtualNode: b, selectors: [\"unix:uid:1\"]}\n"
	boundElse = aGroup + "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: two}\nspec: {group: hosts, mesh: m, virtualNode: b, selectors: [\"unix:uid:2\"]}\n"
)

var nodeB = proxy.Node("m", "b")

func TestANodeThatWasThereWithoutABindingIsAwaitedFromItsFirstOnUntilItHasNone(t *testing.T) {
	model := func(text string) Model {
		if text == "" {
			text = "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\n"
		}
		return viewed{storedOf(t, text).Model}
	}
	both := bound + strings.TrimPrefix(boundElse, aGroup)
	waited := (*awaited.Nodes)(nil).With(nodeB)
	for name, c := range map[string]struct {
		was       *awaited.Nodes
		now, next string
		want      bool
	}{
		"it gets its first Binding":                   {nil, aGroup, bound, true},
		"it comes with its Binding":                   {nil, "", bound, false},
		"it has another Binding":                      {nil, bound, both, false},
		"another takes its Binding's place":           {nil, bound, boundElse, false},
		"nothing of it changes":                       {waited, bound, bound, true},
		"it gets another while it is so":              {waited, bound, both, true},
		"it loses one of two":                         {waited, both, bound, true},
		"it loses its last one":                       {waited, bound, aGroup, false},
		"it goes, and its Binding":                    {waited, bound, "", false},
		"it has none":                                 {nil, aGroup, aGroup, false},
		"a change was not stored by which it had one": {waited, aGroup, aGroup, false},
		"it was not there at a change that was not":   {waited, "", bound, false},
	} {
		now, next := model(c.now), model(c.next)
		if got := awaited.After(c.was, next.Rebound(now), now, next).Has(nodeB); got != c.want {
			t.Errorf("%s: awaited %v, want %v", name, got, c.want)
		}
	}
}

func TestCallersOfAnAwaitedNodeGoOnByItsNameUntilItsFirstEndpointAndNeverAfter(t *testing.T) {
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	endpoints := fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: everywhere{}, Clock: time.Now})
	v := viewsOf(sourceOf(t))
	in := nodeInputs{model: viewed{storedOf(t, aGroup).Model}, endpoints: endpoints.Snapshot(), stamp: "p"}
	called := func() string {
		t.Helper()
		set, err := v.translate(in).set(Key{proxy.Node("m", "a"), anyShape})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Type(ads.ClusterType) {
			c := &clusterv3.Cluster{}
			if err := proto.Unmarshal(r.Body, c); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(r.Name, "cds_egress_m_b_") {
				how := "by its name"
				if c.GetType() == clusterv3.Cluster_EDS {
					how = "at endpoints"
				}
				if c.GetTransportSocket() != nil {
					how += " by mTLS"
				}
				return how
			}
		}
		return "not at all"
	}
	if got := called(); got != "by its name" {
		t.Fatalf("without a Binding it is called %s", got)
	}
	was := in
	in = in.with(was.model, viewed{storedOf(t, bound).Model})
	if got := called(); got != "by its name" {
		t.Errorf("with a Binding and no proxy it is called %s", got)
	}
	if affected := in.affected(was); !affected.everything && !affected.nodes[proxy.Node("m", "a")] {
		t.Error("its callers are not looked at when it is awaited")
	}
	report := func(proxies ...*api.ProxyStatus) {
		was = in
		if refused := endpoints.Report(fleet.Peer{Agent: store.Agent{ID: "two"}, Remote: netip.MustParseAddr("127.0.0.1")}, &api.Report{Proxies: proxies}); len(refused) > 0 {
			t.Fatal(refused)
		}
		in.endpoints = endpoints.Snapshot()
		in.awaited = in.awaited.Arrived(in.endpoints.Ready)
	}
	at := &api.ProxyStatus{
		Name: "b", VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "b"}, Address: "127.0.0.1", Ports: []uint32{80}, State: api.ProxyStatus_READY.Enum(), Healthy: true, Failing: []uint32{80},
	}
	report(at)
	if got := called(); got != "by its name" {
		t.Errorf("while its application is not there it is called %s", got)
	}
	at.Failing = nil
	report(at)
	if got := called(); got != "at endpoints by mTLS" {
		t.Errorf("with a proxy it is called %s", got)
	}
	if list := in.affected(was).nodes; !list[proxy.Node("m", "a")] {
		t.Error("its callers are not looked at when it is there")
	}
	report()
	if got := called(); got != "by its name by mTLS" || len(slices.Collect(in.awaited.All())) > 0 {
		t.Errorf("when its proxy has gone it is called %s", got)
	}
}
