package agent

import (
	"crypto/tls"
	"log/slog"

	"signet.example/agent/join"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/upstream"
	"signet.example/internal/watched"
)

// link is the connection to the servers with what comes over it. upstream sets it, the
// other parts read it.
type link struct {
	enrol  *join.Enrolment
	keeper *svids.Keeper
	line   *join.Line

	state     watched.Value[*resources.Snapshot]
	connected watched.Value[bool]
	callers   upstream.Callers
}

// newLink prepares the connection; first is the SVID of the join.
func newLink(e *join.Enrolment, first *svids.SVID, m *svids.Metrics, log *slog.Logger) (*link, error) {
	l := &link{enrol: e}
	line, err := e.Dial(func() *tls.Certificate {
		if s := l.keeper.Get(svids.Own); s != nil {
			return s.Certificate()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.line = line
	l.keeper = svids.NewKeeper(upstream.Issuer(line.Conn(), e.Trust), m, log)
	l.keeper.Install(first)
	return l, nil
}
