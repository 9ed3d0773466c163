package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"signet.example/agent/authzproc"
	"signet.example/agent/envoy"
	"signet.example/agent/files"
	"signet.example/agent/local"
	"signet.example/agent/svids"
	"signet.example/agent/wayout"
	"signet.example/internal/scrape"
)

// metrics are the agent's own, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry

	svids        *svids.Metrics
	envoys       *envoy.Metrics
	authz        *authzproc.Metrics
	wayOut       *wayout.Metrics
	files        *files.Metrics
	attestations prometheus.Counter
	upstream     prometheus.Gauge
	refused      *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.svids = svids.NewMetrics(m.registry)
	m.envoys = envoy.NewMetrics(m.registry)
	m.authz = authzproc.NewMetrics(m.registry)
	m.wayOut = wayout.NewMetrics(m.registry)
	m.files = files.NewMetrics(m.registry)
	m.attestations = counter("signet_agent_attestations_total", "Times that the agent attested itself to a server.").WithLabelValues()
	m.upstream = gauge("signet_agent_upstream_connected", "1 while the agent's stream to a server stands.").WithLabelValues()
	m.refused = counter("signet_agent_peers_refused_total", "Local peers that were refused, by socket.", "socket")
	// A series that comes with its first event hides it from rate and increase.
	for _, socket := range []string{"xds", "workload", "authz", "wayout"} {
		m.refused.WithLabelValues(socket)
	}
	return m
}

// outageBudget registers what the shortest-lived SVID leaves, as it is asked for.
func (m *metrics) outageBudget(left func() (time.Duration, bool)) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signet_agent_outage_budget_seconds",
		Help: "How long every identity that is kept would outlive the servers; -1 while there is none.",
	}, func() float64 {
		if d, ok := left(); ok {
			return d.Seconds()
		}
		return -1
	}))
}

// tlsFiles registers how many certificates, keys and authorities of files are not as the
// mesh wants them.
func (m *metrics) tlsFiles(problems func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signet_agent_tls_files_failing",
		Help: "Certificates and authorities in files that proxies are to have and that are missing, refused, or about to end with nothing newer.",
	}, func() float64 { return float64(problems()) }))
}

// streams registers the number of open streams of a socket.
func (m *metrics) streams(socket string, open func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signet_agent_streams", Help: "Open streams of local peers, by socket.",
		ConstLabels: prometheus.Labels{"socket": socket},
	}, func() float64 { return float64(open()) }))
}

// health reports what is wrong; nil is well.
type health func() error

func (h health) serve(w http.ResponseWriter, _ *http.Request) {
	if err := h(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok") // the client's loss
}

// serveHTTP serves /metrics, /healthz and /readyz on l until ctx ends.
func (m *metrics) serveHTTP(ctx context.Context, l net.Listener, well, ready health, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", well.serve)
	mux.HandleFunc("GET "+local.ReadyPath, ready.serve)
	return scrape.Serve(ctx, l, mux, log)
}
