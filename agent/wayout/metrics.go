package wayout

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are about connections to outbound listeners.
type Metrics struct {
	connections *prometheus.CounterVec
	seconds     prometheus.Histogram
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	m := &Metrics{
		connections: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "signet_agent_wayout_connections_total", Help: "Connections to outbound listeners, by whether they were let out and why not.",
		}, []string{"result"}),
		seconds: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "signet_agent_wayout_seconds", Help: "Time that it took to decide on a connection to an outbound listener.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25},
		}),
	}
	for _, reason := range reasons { // a series that comes with its first event hides it from rate and increase
		m.connections.WithLabelValues(reason)
	}
	return m
}
