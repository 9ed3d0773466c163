package envoy

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/api"
)

func TestConnectionsWithoutAPostQuantumKeyExchangeAreCountedAndTold(t *testing.T) {
	var mu sync.Mutex
	page := ""
	say := func(lines ...string) { mu.Lock(); defer mu.Unlock(); page = strings.Join(lines, "\n") }
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write([]byte(page))
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })

	admin, c, counted := newAdmin(socket), classical{}, map[exchange]uint64{}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	look := func() {
		t.Helper()
		seen, _, err := admin.counters(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		c.note(now, seen, func(x exchange, n uint64) { counted[x] += n })
	}
	say("cluster.cds_egress_shop_b_http_80.ssl.curves.X25519MLKEM768: 3", "listener.127.0.0.2_8080.ssl.curves.X25519MLKEM768: 4", "nothing: 1")
	look()
	if f := c.findings(now, "web"); len(f) > 0 {
		t.Errorf("%q", f)
	}
	say("listener.127.0.0.2_8080.ssl.curves.X25519MLKEM768: 4", "listener.127.0.0.2_8080.ssl.curves.X25519: 2", "listener.127.0.0.2_9090.ssl.curves.P-256: 1")
	look()
	look()
	now = now.Add(time.Minute)
	say("listener.127.0.0.2_8080.ssl.curves.X25519MLKEM768: 4", "listener.127.0.0.2_8080.ssl.curves.X25519: 2") // one listener is gone
	look()
	if f := c.findings(now, "web"); len(f) != 1 || f[0].GetKind() != api.AgentFinding_CLASSICAL_KEY_EXCHANGE || !strings.HasSuffix(f[0].GetText(), "the last at 2026-11-28T12:00:00Z") || !strings.HasPrefix(f[0].GetText(), "proxy web: 3 connections of callers without X25519MLKEM768") {
		t.Errorf("%q", f)
	}
	say("cluster.x.ssl.curves.X25519: 1", "listener.127.0.0.2_8080.ssl.curves.X25519: 1") // another Envoy
	c.begin()
	look()
	if f := c.findings(now, "web"); len(f) != 2 || !strings.Contains(f[0].GetText(), ": 4 connections") || !strings.Contains(f[1].GetText(), ": 1 connections to services that it calls") {
		t.Errorf("%q", f)
	}
	want := map[exchange]uint64{{sideCalled, true}: 3, {sideCallers, true}: 4, {sideCallers, false}: 4, {sideCalled, false}: 1}
	for x, n := range want {
		if counted[x] != n {
			t.Errorf("%+v: %d, want %d", x, counted[x], n)
		}
	}
	if f := c.findings(now.Add(classicalShown), "web"); len(f) > 0 {
		t.Errorf("still told: %q", f)
	}
}

func TestAProxyThatIsGoneLeavesNoSeries(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	m.fingerprintMatch.WithLabelValues("web").Set(1)
	m.ready("web", true)
	m.restarted("web")
	m.handshakes.WithLabelValues("web", sideCallers, "classical").Inc()
	m.gone("web")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				if l.GetName() == "proxy" {
					t.Errorf("%s still has proxy %s", f.GetName(), l.GetValue())
				}
			}
		}
	}
}
