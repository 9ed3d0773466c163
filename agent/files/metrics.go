package files

import "github.com/prometheus/client_golang/prometheus"

// Metrics of credential folders.
type Metrics struct {
	failing  prometheus.Gauge
	commands *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		failing:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "signet_agent_files_failing", Help: "Credential folders that are not what they are to be, or whose command failed."}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signet_agent_files_commands_total", Help: "Commands after a change of a credential folder, by result."}, []string{"result"}),
	}
	r.MustRegister(m.failing, m.commands)
	for _, result := range []string{"ok", "failed"} {
		m.commands.WithLabelValues(result)
	}
	return m
}
