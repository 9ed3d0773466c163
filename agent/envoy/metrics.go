package envoy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are about the Envoys that are supervised.
type Metrics struct {
	fingerprintMatch *prometheus.GaugeVec
	restarts         *prometheus.CounterVec
	isReady          *prometheus.GaugeVec
	handshakes       *prometheus.CounterVec
	answers          *prometheus.CounterVec
	logsLost         *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	return &Metrics{
		fingerprintMatch: auto.NewGaugeVec(prometheus.GaugeOpts{Name: "signet_agent_served_fingerprint_match", Help: "1 where the proxy's certificate, read back, is the newest SVID."}, []string{"proxy"}),
		restarts:         auto.NewCounterVec(prometheus.CounterOpts{Name: "signet_agent_envoy_restarts_total", Help: "Restarts of a supervised Envoy."}, []string{"proxy"}),
		isReady:          auto.NewGaugeVec(prometheus.GaugeOpts{Name: "signet_agent_envoy_ready", Help: "1 where the supervised Envoy is ready."}, []string{"proxy"}),
		handshakes:       auto.NewCounterVec(prometheus.CounterOpts{Name: "signet_agent_proxy_handshakes_total", Help: "TLS handshakes of a supervised Envoy, by side (callers, called) and key exchange (post_quantum, classical)."}, []string{"proxy", "side", "key_exchange"}),
		answers:          auto.NewCounterVec(prometheus.CounterOpts{Name: "signet_agent_proxy_answers_total", Help: "Answers that a supervised Envoy made by itself, by kind (docs/ANSWERS.md)."}, []string{"proxy", "kind"}),
		logsLost:         auto.NewCounterVec(prometheus.CounterOpts{Name: "signet_agent_access_log_writes_failed_total", Help: "Writes of a proxy's access logs that failed, and whose lines are lost: a line each in a task's standard output, one or more in a file."}, []string{"proxy"}),
	}
}

// begin has the series of a proxy's restarts and lost logs: one that comes with its first event
// hides it from rate and increase.
func (m *Metrics) begin(name string) {
	m.restarts.WithLabelValues(name)
	m.logsLost.WithLabelValues(name)
}

// answered counts one: kinds are those of a table, so that a proxy has no more series than it has
// rows.
func (m *Metrics) answered(name, kind string) { m.answers.WithLabelValues(name, kind).Inc() }

func (m *Metrics) restarted(name string) { m.restarts.WithLabelValues(name).Inc() }

func (m *Metrics) ready(name string, is bool) {
	v := 0.0
	if is {
		v = 1
	}
	m.isReady.WithLabelValues(name).Set(v)
}

// gone removes the series of a proxy that is no longer run.
func (m *Metrics) gone(name string) {
	m.fingerprintMatch.DeleteLabelValues(name)
	m.isReady.DeleteLabelValues(name)
	m.restarts.DeleteLabelValues(name)
	m.logsLost.DeleteLabelValues(name)
	m.answers.DeletePartialMatch(prometheus.Labels{"proxy": name})
	m.handshakes.DeletePartialMatch(prometheus.Labels{"proxy": name})
}
