package authzproc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"signet.example/authz"
)

// Metrics are about decisions and the process that makes them.
type Metrics struct {
	decisions               *authz.Metrics
	lost, restarts, stopped prometheus.Counter
}

// NewMetrics registers them. Decisions are counted here, with their records: the
// authz process serves no page of its own.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	m := &Metrics{
		decisions: authz.NewMetrics(),
		lost:      auto.NewCounter(prometheus.CounterOpts{Name: "signet_agent_decision_records_lost_total", Help: "Decisions whose record was dropped because the reader was slow."}),
		restarts:  auto.NewCounter(prometheus.CounterOpts{Name: "signet_agent_authz_restarts_total", Help: "Restarts of the authz process."}),
		stopped:   auto.NewCounter(prometheus.CounterOpts{Name: "signet_agent_evaluations_stopped_total", Help: "Times that the calls to a destination began to be answered with an error under a policy revision, since an evaluation ended the authz process."}),
	}
	reg.MustRegister(m.decisions)
	return m
}
