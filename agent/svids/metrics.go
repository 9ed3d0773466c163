package svids

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Metrics are about the SVIDs that are kept.
type Metrics struct {
	notAfter, renewDue, lastRotation *prometheus.GaugeVec
	renewFailures                    *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	m := &Metrics{
		notAfter:      auto.NewGaugeVec(prometheus.GaugeOpts{Name: "signet_agent_svid_not_after_timestamp_seconds", Help: "When the SVID that is served ends."}, []string{"spiffe_id"}),
		renewDue:      auto.NewGaugeVec(prometheus.GaugeOpts{Name: "signet_agent_svid_renew_due_timestamp_seconds", Help: "When the SVID's renewal is due."}, []string{"spiffe_id"}),
		lastRotation:  auto.NewGaugeVec(prometheus.GaugeOpts{Name: "signet_agent_svid_last_rotation_timestamp_seconds", Help: "When the SVID was issued."}, []string{"spiffe_id"}),
		renewFailures: auto.NewCounterVec(prometheus.CounterOpts{Name: "signet_agent_svid_renew_failures_total", Help: "Failed requests for an SVID, by reason."}, []string{"reason"}),
	}
	// A series that comes with its first event hides it from rate and increase.
	for _, reason := range []string{reasonBadAnswer, reasonRefused, reasonUnreachable, reasonDenied, reasonServer} {
		m.renewFailures.WithLabelValues(reason)
	}
	return m
}

// rotated notes a new SVID.
func (m *Metrics) rotated(s *SVID) {
	id := s.ID.String()
	m.notAfter.WithLabelValues(id).Set(seconds(s.NotAfter()))
	m.renewDue.WithLabelValues(id).Set(seconds(s.Due))
	m.lastRotation.WithLabelValues(id).Set(seconds(s.Issued))
}

// dropped removes the series of an identity that is no longer kept.
func (m *Metrics) dropped(spiffeID string) {
	for _, v := range []*prometheus.GaugeVec{m.notAfter, m.renewDue, m.lastRotation} {
		v.DeleteLabelValues(spiffeID)
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// Why an SVID was not issued.
const (
	reasonBadAnswer   = "bad_answer"
	reasonRefused     = "refused"
	reasonUnreachable = "unreachable"
	reasonDenied      = "denied"
	reasonServer      = "server"
)

// failureReason sorts an error of issuance for the counter.
func failureReason(err error) string {
	if errors.Is(err, ErrBadAnswer) {
		return reasonBadAnswer
	}
	if _, ok := errors.AsType[*RefusedError](err); ok {
		return reasonRefused
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return reasonUnreachable
	case codes.PermissionDenied, codes.Unauthenticated:
		return reasonDenied
	}
	return reasonServer
}
