package envoy

import (
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/proxy"
)

// clusters is what Envoy 1.40 answers to /clusters?format=json, shortened.
const clusters = `{"cluster_statuses": [
 {"name": "cds_egress_m_cds_ingress_http_81", "host_statuses": [{"health_status": {"failed_active_health_check": true}}]},
 {"name": "cds_ingress_m_n_http_8081", "host_statuses": [{"health_status": {"failed_active_health_check": true, "active_hc_timeout": true, "eds_health_status": "HEALTHY"}}]},
 {"name": "cds_ingress_m_n_http_8080", "host_statuses": [{"stats": [{"name": "rq_total", "value": "3"}], "health_status": {"eds_health_status": "HEALTHY"}}]},
 {"name": "cds_ingress_m_n_9_tcp_90", "host_statuses": [{"health_status": {"failed_active_health_check": true, "eds_health_status": "HEALTHY"}}]},
 {"name": "cds_ingress_m_n_http_99999", "host_statuses": [{"health_status": {"failed_active_health_check": true}}]},
 {"name": "cds_ingress_m_n_http_83", "host_statuses": [{"health_status": {"failed_active_health_check": true, "excluded_via_immediate_hc_fail": true, "eds_health_status": "HEALTHY"}}]},
 {"name": "cds_ingress_m_n_http_82"},
 {"name": "signet_authz", "host_statuses": [{"health_status": {"failed_active_health_check": true}}]}]}`

// anEnvoy answers /clusters at an admin socket.
func anEnvoy(t *testing.T, answer http.HandlerFunc) *envoy {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: answer} //nolint:gosec // of a test
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // it ends with the test
	}()
	t.Cleanup(func() {
		_ = s.Close() // as above
		<-done
	})
	return newEnvoy(Config{Changed: func() {}, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)}, Proxy{Name: "n", Ref: proxy.Node("m", "n"), Admin: socket}, nil)
}

func TestThePortsOfApplicationsThatFailTheirChecksAreRead(t *testing.T) {
	e := anEnvoy(t, func(w http.ResponseWriter, r *http.Request) {
		of, err := regexp.Compile(r.URL.Query().Get("filter"))
		if r.URL.Path != "/clusters" || r.URL.Query().Get("format") != "json" || err != nil || of.MatchString("cds_egress_m_n_http_80") || !of.MatchString("cds_ingress_m_n_http_80") {
			http.Error(w, "all of a large Envoy is asked for: "+r.URL.String(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte(clusters)) // it is read
	})
	ports, err := e.admin.failing(t.Context())
	if err != nil || !slices.Equal(ports, []uint32{90, 8081}) {
		t.Errorf("%v, %v", ports, err)
	}
}

func TestTheHealthOfAnApplicationIsNewsOnceAndStaysAsItWasWhileEnvoyIsSilent(t *testing.T) {
	var answer atomic.Value
	answer.Store(clusters)
	e := anEnvoy(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(answer.Load().(string))) // it is read
	})
	news := 0
	e.config.Changed = func() { news++ }
	for i, step := range []struct {
		answer string
		want   []uint32
		news   int
	}{
		{clusters, []uint32{90, 8081}, 1},
		{clusters, []uint32{90, 8081}, 1},
		{"upstream connect error", []uint32{90, 8081}, 1},
		{`{"cluster_statuses": []}`, nil, 2},
		{`{}`, nil, 2},
	} {
		answer.Store(step.answer)
		e.readHealth(t.Context())
		if s := e.current(e.classical.last["none"]); !slices.Equal(s.Failing, step.want) || news != step.news {
			t.Errorf("step %d: %v, told %d times", i, s.Failing, news)
		}
	}
}
