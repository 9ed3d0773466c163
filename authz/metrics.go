package authz

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts decisions. Observe takes a Record, so that they can be
// counted where they are made or, with the records, in another process.
type Metrics struct {
	decisions *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	rules     *prometheus.CounterVec
	rooms     rooms
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
		rules: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_authz_rule_decisions_total",
			Help: "Authorization decisions by result, the first rule that decided (empty: no rule allows it), and the SPIFFE IDs of caller and callee. At most 60 series of a callee, 8 of them of one caller; the others are counted as \"other\". With a new policy revision they begin anew where there is no room.",
		}, []string{"result", "rule", "source", "destination"}),
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
	m.observeRule(r, result)
}

func (m *Metrics) observeRule(r Record, result string) {
	s, destination, anew := m.rooms.place(r, result)
	if anew {
		m.rules.DeletePartialMatch(prometheus.Labels{"destination": destination})
	}
	c, err := m.rules.GetMetricWithLabelValues(s.result, s.rule, s.source, destination)
	if err != nil { // no UTF-8
		c = m.rules.WithLabelValues(result, other, other, strings.ToValidUTF8(destination, "?"))
	}
	c.Inc()
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.decisions.Describe(ch)
	m.duration.Describe(ch)
	m.rules.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.decisions.Collect(ch)
	m.duration.Collect(ch)
	m.rules.Collect(ch)
}
