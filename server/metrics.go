package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"signet.example/api"
	"signet.example/internal/scrape"
	"signet.example/server/access"
	"signet.example/server/fleet"
	"signet.example/server/signer"
)

// metrics are the server's own, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry

	issued       *prometheus.CounterVec // profile, outcome
	limited      prometheus.Counter
	refused      *prometheus.CounterVec // method
	tooMany      prometheus.Counter
	published    prometheus.Counter
	buildErrors  prometheus.Counter
	rebuild      prometheus.Histogram
	policyErrors *prometheus.CounterVec // source
	jwksErrors   *prometheus.CounterVec // issuer
	foundErrors  *prometheus.CounterVec // service
	auditErrors  prometheus.Counter
	adminCalls   *prometheus.CounterVec // method, code
	handshakes   *prometheus.CounterVec // key_exchange
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry:     prometheus.NewRegistry(),
		issued:       vec("signet_server_svids_issued_total", "SVIDs asked for, by profile and outcome (ok, failed, refused).", "profile", "outcome"),
		limited:      counter("signet_server_rate_limited_total", "Issue calls refused because their agent asked for too much."),
		refused:      vec("signet_server_callers_refused_total", "Calls on the agents' listener that were not let in.", "method"),
		tooMany:      counter("signet_server_connections_refused_total", "Connections to the agents' port that were closed because others came and there was no room."),
		published:    counter("signet_server_views_published_total", "Views that came out different and were published."),
		buildErrors:  counter("signet_server_view_build_errors_total", "Views that could not be built; the last good one stayed."),
		policyErrors: vec("signet_server_policy_sync_errors_total", "Policy syncs that failed.", "source"),
		jwksErrors:   vec("signet_server_jwks_fetch_errors_total", "Key set fetches that failed.", "issuer"),
		foundErrors:  vec("signet_server_cloud_map_errors_total", "Questions to AWS Cloud Map that failed, where it is asked; the last good answer stayed.", "service"),
		auditErrors:  counter("signet_server_audit_errors_total", "Audit rows that could not be written."),
		adminCalls:   vec("signet_server_admin_calls_total", "Calls on the admin socket, by method and code.", "method", "code"),
		handshakes:   vec("signet_server_handshakes_total", "TLS handshakes of the agents' listener, by key exchange (post_quantum, classical).", "key_exchange"),
		rebuild: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signet_server_views_rebuild_seconds", Help: "Time to rebuild all views after a change.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	// A series that comes with its first event hides it from rate and increase.
	for _, profile := range []api.Profile{api.Profile_PROFILE_WORKLOAD, api.Profile_PROFILE_AGENT} {
		for _, outcome := range []string{"ok", "failed", "refused"} {
			m.svids(profile, outcome)
		}
	}
	for _, kind := range []string{exchangePostQuantum, exchangeClassical} {
		m.handshakes.WithLabelValues(kind)
	}
	for _, method := range access.Methods() {
		m.refused.WithLabelValues(method)
	}
	m.registry.MustRegister(m.issued, m.limited, m.refused, m.tooMany, m.published, m.buildErrors, m.rebuild,
		m.policyErrors, m.jwksErrors, m.foundErrors, m.auditErrors, m.adminCalls, m.handshakes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// svids counts what was asked for with a profile and came out so.
func (m *metrics) svids(p api.Profile, outcome string) prometheus.Counter {
	return m.issued.WithLabelValues(signer.ProfileName(p), outcome)
}

// Kinds of key exchange.
const (
	exchangePostQuantum = "post_quantum"
	exchangeClassical   = "classical"
)

// exchanged counts the key exchange of a connection.
func (m *metrics) exchanged(id tls.CurveID) {
	kind := exchangeClassical
	if id == tls.X25519MLKEM768 {
		kind = exchangePostQuantum
	}
	m.handshakes.WithLabelValues(kind).Inc()
}

// gauges are gauges read from the server's state at scrape time.
type gauges struct{ s *server }

var (
	descAgents    = prometheus.NewDesc("signet_server_agents", "Agents that joined, by state ("+strings.Join(stateWords(), ", ")+").", []string{"state"}, nil)
	descViews     = prometheus.NewDesc("signet_server_views", "Views with a stream, by kind (agent, node).", []string{"kind"}, nil)
	descEndpoints = prometheus.NewDesc("signet_server_endpoints", "Registered endpoints, by state (served, refused).", []string{"state"}, nil)
	descRejected  = prometheus.NewDesc("signet_server_xds_rejected", "Resource versions that proxies refused, as agents report them.", nil, nil)
	descPolicy    = prometheus.NewDesc("signet_server_policy_revision_info", "The policy revision in force.", []string{"revision", "commit", "source"}, nil)
	descRevision  = prometheus.NewDesc("signet_server_config_revision", "Revision of the configuration that is served.", nil, nil)
	descIssuing   = prometheus.NewDesc("signet_server_issuing_ca_not_after_timestamp_seconds", "End of the issuing CA's certificate.", nil, nil)
	descRoot      = prometheus.NewDesc("signet_server_root_ca_not_after_timestamp_seconds", "End of the first root to end.", nil, nil)
	descOrphans   = prometheus.NewDesc("signet_server_orphan_reservations", "Serials that were reserved and neither issued nor abandoned.", nil, nil)
)

func stateWords() []string {
	words := make([]string, len(fleet.States))
	for i, state := range fleet.States {
		words[i] = api.Word(state)
	}
	return words
}

// Describe implements prometheus.Collector.
func (gauges) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descAgents, descViews, descEndpoints, descRejected, descPolicy, descRevision, descIssuing, descRoot, descOrphans,
	} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (w gauges) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := w.s
	states := map[api.AgentInfo_State]int{}
	for _, st := range s.statuses.All() {
		states[st.State]++
	}
	var rejected int
	for _, o := range s.sessions.Connected() {
		for _, p := range o.Latest().GetProxies() {
			rejected += len(p.GetRejected())
		}
	}
	for _, state := range fleet.States {
		gauge(descAgents, float64(states[state]), api.Word(state))
	}
	agents, nodes := s.views.Count()
	gauge(descViews, float64(agents), "agent")
	gauge(descViews, float64(nodes), "node")
	gauge(descEndpoints, float64(s.endpoints.Count()), "served")
	gauge(descEndpoints, float64(len(s.endpoints.Refused())), "refused")
	gauge(descRejected, float64(rejected))
	p := s.policies.State().Current
	gauge(descPolicy, 1, p.GetId(), p.GetCommit(), p.GetSource())
	gauge(descRevision, float64(s.model().Revision()))
	roots := s.authority.Roots()
	gauge(descIssuing, float64(roots.Issuing.NotAfter.Unix()))
	gauge(descRoot, float64(roots.FirstEnd().Unix()))
	gauge(descOrphans, float64(len(s.issued.Orphans(s.clock()))))
}

// httpFace serves /metrics, /healthz and /readyz on a loopback address.
func (s *server) httpFace(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) } // the client may be gone
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "starting or stopping", http.StatusServiceUnavailable)
			return
		}
		ok(w, r)
	})
	return scrape.Serve(ctx, l, mux, s.log)
}
