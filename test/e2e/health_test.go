package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/dev"
	"signet.example/test/meshtest"
)

// The check that orders declares.
const (
	checkInterval   = 5 * time.Second
	checkThreshold  = 2
	checkedPath     = "/healthz"
	toldWithin      = checkThreshold*checkInterval + time.Second
	triesOnABusyOne = 3 // a host may be too slow for toldWithin
)

// checked is an application whose health its own proxy finds to be bad, and nobody else: to
// the checks of callers, who have an identity, it always answers 200. So no caller leaves it by
// its own check, however long it waits.
type checked struct {
	next    http.Handler
	ill     *atomic.Bool
	callers *atomic.Int64 // how often they have checked it
}

func newChecked(name string) checked {
	return checked{meshtest.Echo(name), new(atomic.Bool), new(atomic.Int64)}
}

func (c checked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch caller := (meshtest.Seen{Headers: r.Header}).Caller(); {
	case r.URL.Path != checkedPath:
		c.next.ServeHTTP(w, r)
	case caller != "":
		c.callers.Add(1)
	case c.ill.Load():
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// answering are the services that answer a number of calls in a row. A busy host may fail to
// carry one of them: who waits asks again.
func answering(w *meshtest.World) string {
	client := w.Client("front")
	var names []string
	for range 12 {
		a, err := meshtest.Do(w.T, client, http.MethodGet, host+"/orders")
		if err != nil {
			return err.Error()
		}
		names = append(names, fmt.Sprint(a.Status, " ", a.Seen.Service))
	}
	slices.Sort(names)
	client.CloseIdleConnections()
	return strings.Join(slices.Compact(names), ", ")
}

// failing are the ports at which the applications of proxies fail.
func failing(w *meshtest.World) string {
	by := map[string][]uint32{}
	for _, p := range w.Proxies() {
		if len(p.GetFailing()) > 0 {
			by[p.GetName()] = p.GetFailing()
		}
	}
	return fmt.Sprint(by)
}

// decision 074: within unhealthyThreshold × intervalMillis + 1 s, whenever the caller asks.
func TestAnApplicationThatFailsItsCheckIsLeftByCallersWhoDidNotFindOut(t *testing.T) {
	spare, err := dev.ReserveLoopback(2, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spare.Close() }) // the processes that used them have ended
	first, second := newChecked("first"), newChecked("second")
	check := fmt.Sprintf("      healthCheck: {protocol: http, path: %s, healthyThreshold: %d, unhealthyThreshold: %d, intervalMillis: %d, timeoutMillis: 2000}\n",
		checkedPath, checkThreshold, checkThreshold, checkInterval.Milliseconds())
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"}, Apps: map[string]meshtest.App{"orders": first},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("orders", check+meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders")) + replicas("second"),
	})
	serveAppAt(t, fmt.Sprintf("%s:%d", spare.Addresses[1], meshtest.AppPort), second)
	config, _ := anotherHost(t, w, "second", fmt.Sprintf("- {name: second, mesh: test, virtual_node: orders, bind: %s, app: %s, concurrency: 1}\n", spare.Addresses[0], spare.Addresses[1]))
	w.Run("second", w.Program(), "agent", "--config", config)
	w.AwaitRoute("front", host+"/orders")
	const both, one, none = "200 first, 200 second", "200 first", "map[]"
	eventually(t, 40*time.Second, "calls of both", func() bool { return answering(w) == both })

	turns := func(ill bool, want string) time.Duration {
		second.ill.Store(ill)
		return eventually(t, 60*time.Second, "calls of "+want, func() bool { return answering(w) == want })
	}
	for tries := 1; ; tries++ {
		left, back := turns(true, one), turns(false, both)
		t.Logf("left after %s, called again %s after it was well", left, back)
		if left <= toldWithin && back <= toldWithin {
			break
		}
		if tries == triesOnABusyOne {
			t.Fatalf("more than %s, %d times", toldWithin, tries)
		}
	}

	turns(true, one)
	if got := failing(w); got != "map[second:[8080]]" {
		t.Errorf("failing: %s", got)
	}
	if at := endpointsOf(t, w, spare.Addresses[0]); len(at) != 1 || at[0].Failed || at[0].EDS != "UNHEALTHY" || second.callers.Load() == 0 {
		t.Errorf("it was not left by what the server said alone: %+v, checked by callers %d times", at, second.callers.Load())
	}
	if out, _ := w.CLI("proxies", "second", "--socket", w.Socket()); !strings.Contains(out, "ready") || !strings.Contains(out, "its application fails the health check of port 8080") {
		t.Errorf("signet proxies: %s", out)
	}
	if out, _ := w.CLI("check", "--socket", w.Socket()); !strings.Contains(out, "SIG043") || !strings.Contains(out, "callers go elsewhere") {
		t.Errorf("signet check: %s", out)
	}

	first.ill.Store(true)
	eventually(t, 60*time.Second, "both fail", func() bool { return failing(w) == "map[orders:[8080] second:[8080]]" })
	eventually(t, 20*time.Second, "calls of both, since none is well", func() bool { return answering(w) == both })
	if states := w.ProxyStates(); states["orders"] != api.ProxyStatus_READY || states["second"] != api.ProxyStatus_READY {
		t.Errorf("a proxy is not ready because its application fails: %v", states)
	}
	first.ill.Store(false)
	second.ill.Store(false)
	eventually(t, 60*time.Second, "none fails", func() bool { return failing(w) == none })
	eventually(t, 20*time.Second, "calls of both", func() bool { return answering(w) == both })
}

// endpointsOf are the endpoints of orders at an address as front's Envoy has them.
func endpointsOf(t *testing.T, w *meshtest.World, address string) (list []envoyHealth) {
	t.Helper()
	var all struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address struct {
					Socket struct {
						Address string `json:"address"`
					} `json:"socket_address"`
				} `json:"address"`
				Health envoyHealth `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	body := adminAt(t, filepath.Join(w.AgentDir(), "proxies", "front", "admin.sock"), "/clusters?format=json")
	if err := json.Unmarshal(body, &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all.Clusters {
		for _, h := range c.Hosts {
			if strings.HasPrefix(c.Name, "cds_egress_test_orders_") && h.Address.Socket.Address == address {
				list = append(list, h.Health)
			}
		}
	}
	return list
}

type envoyHealth struct {
	Failed bool   `json:"failed_active_health_check"`
	EDS    string `json:"eds_health_status"`
}
