package fleet

import (
	"encoding/json"
	"slices"
	"testing"

	"signet.example/api"
	"signet.example/proxy"
)

// ofTwoPorts has one proxy with two listeners, of which the application fails at some ports.
func ofTwoPorts(failing ...uint32) *api.Report {
	return &api.Report{Proxies: []*api.ProxyStatus{{
		Name: "p", VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: "orders"}, Address: "127.0.0.1", Ports: []uint32{90, 80}, Failing: failing,
		State: api.ProxyStatus_READY.Enum(), Healthy: true,
	}}}
}

func TestAnApplicationThatFailsIsUnhealthyAtItsPortAlone(t *testing.T) {
	e, orders := NewEndpoints(configOf(inMemory())), proxy.Node("m", "orders")
	for _, step := range []struct {
		failing, want []uint32
		news          bool
	}{
		{nil, nil, true},
		{[]uint32{90}, []uint32{90}, true},
		{[]uint32{90, 90}, []uint32{90}, false},
		{[]uint32{81, 0, 1 << 20, 90}, []uint32{90}, false}, // it serves no such ports
		{[]uint32{90, 80}, []uint32{80, 90}, true},
		{nil, nil, true},
		{[]uint32{80}, []uint32{80}, true},
	} {
		before := e.Snapshot()
		e.Report(hostile("a"), ofTwoPorts(step.failing...))
		n := e.Snapshot().Of(orders)[0]
		if !slices.Equal(n.Failing, step.want) || n.HealthyAt(80) == slices.Contains(step.want, 80) || n.HealthyAt(90) == slices.Contains(step.want, 90) {
			t.Errorf("failing at %v: %+v", step.failing, n)
		}
		if news := len(e.Snapshot().Differ(before)) > 0; news != step.news {
			t.Errorf("failing at %v: callers are told something else: %t", step.failing, news)
		}
	}
	var again Endpoint // after a restart of the server
	text, err := json.Marshal(e.Snapshot().Of(orders)[0])
	if err != nil || json.Unmarshal(text, &again) != nil || again.HealthyAt(80) || !again.HealthyAt(90) {
		t.Errorf("as it is kept: %s, %v", text, err)
	}
	r := ofTwoPorts(make([]uint32, maxPorts+1)...)
	if checkReport(r) == nil {
		t.Error("any number of ports is taken to fail")
	}
}
