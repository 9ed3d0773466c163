package agent

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/upstream"
	"signet.example/internal/watched"
)

// link is the connection to the servers with what comes over it. upstream sets it, the
// other parts read it.
type link struct {
	enrol  *enrolment
	keeper *svids.Keeper
	conn   *grpc.ClientConn
	line   line // under conn

	state     watched.Value[*resources.Snapshot]
	connected watched.Value[bool]
}

// newLink prepares the connection; first is the SVID of the join.
func newLink(e *enrolment, first *svids.SVID, m *metrics, log *slog.Logger) (*link, error) {
	l := &link{enrol: e}
	conn, err := e.dial(&l.line, func() *tls.Certificate {
		if s := l.keeper.Get(svids.Own); s != nil {
			return s.Certificate()
		}
		return nil
	}, byTrust(e.trust.Load, time.Now))
	if err != nil {
		return nil, err
	}
	l.conn = conn
	l.keeper = svids.NewKeeper(upstream.Issuer(conn, e.trust.Load), m.svids, log)
	l.keeper.Install(first)
	return l, nil
}

// hostStanding is an enrolment as upstream takes it.
type hostStanding struct{ enrol *enrolment }

// Trust implements Standing.
func (s hostStanding) Trust() *svids.Trust { return s.enrol.trust.Load() }

// Keep implements Standing.
func (s hostStanding) Keep(t *svids.Trust) { s.enrol.keep(t, s.enrol.agentID()) }

// Renew implements Standing.
func (s hostStanding) Renew(ctx context.Context) (*svids.SVID, error) { return s.enrol.renew(ctx) }
