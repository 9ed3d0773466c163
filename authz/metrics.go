package authz

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts decisions. Observe takes a Record, so that they can be
// counted where they are made or, with the records, in another process.
type Metrics struct {
	decisions *prometheus.CounterVec
	duration  *prometheus.HistogramVec
}

// NewMetrics returns metrics that are all zero; register them once.
func NewMetrics() *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_authz_decisions_total",
			Help: "Authorization decisions by result (allowed, denied, observed: let through although the policy denies it) and cause of the denial (policy, error, unavailable).",
		}, []string{"result", "cause"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signet_authz_decision_duration_seconds",
			Help:    "Time from Envoy's question to the answer, within the authz process.",
			Buckets: []float64{.00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1},
		}, []string{"result"}),
	}
	m.decisions.WithLabelValues("allowed", "")
	for _, c := range []Cause{CausePolicy, CauseError, CauseUnavailable} {
		m.decisions.WithLabelValues("denied", string(c))
	}
	for _, c := range []Cause{CausePolicy, CauseError} {
		m.decisions.WithLabelValues("observed", string(c))
	}
	return m
}

// Observe counts one decision.
func (m *Metrics) Observe(r Record) {
	result := "denied"
	switch {
	case r.Allowed:
		result = "allowed"
	case r.Observed:
		result = "observed"
	}
	m.decisions.WithLabelValues(result, string(r.Cause)).Inc()
	m.duration.WithLabelValues(result).Observe(r.Duration.Seconds())
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.decisions.Describe(ch)
	m.duration.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.decisions.Collect(ch)
	m.duration.Collect(ch)
}
