package access

import (
	"crypto/x509"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"

	"signet.example/identity"
	"signet.example/internal/underway"
	"signet.example/server/conns"
)

// Credentials are those of the agents' listener, over TLS. room counts what is sent and not
// read.
func (a *Access) Credentials(over credentials.TransportCredentials, room *underway.Room) credentials.TransportCredentials {
	return verifiedCredentials{over, a.knows, room, a.cfg.Log}
}

// verifiedCredentials are TLS credentials that give each connection a place to keep
// what its peer's chain has proven: a connection has one chain for all its calls.
type verifiedCredentials struct {
	credentials.TransportCredentials
	// known reports whether a peer is an agent that is to be served, and returns its principal.
	known func(*tlsPeer) (principal string, ok bool)
	// room counts what is sent and not read: of an address, until an agent calls; of a principal
	// from the beginning.
	room *underway.Room
	log  *slog.Logger
}

// ServerHandshake implements credentials.TransportCredentials.
func (c verifiedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	principal, known := "", false
	if t, ok := info.(credentials.TLSInfo); ok {
		p := &tlsPeer{TLSInfo: t}
		info = p
		principal, known = c.known(p)
	}
	if u, ok := raw.(*conns.Conn); ok && err == nil {
		u.Shook(known)
	}
	if err != nil {
		return conn, info, err
	}
	kept := c.room.Enter(conn, conns.Source(conns.AddrOf(raw.RemoteAddr())).String(), func(who string, err error) {
		c.log.Warn("connection closed", slog.String("remote", raw.RemoteAddr().String()), slog.String("of", who), slog.Any("err", err))
		_ = raw.Close() // TLS would wait for whoever does not read
	})
	if known {
		kept.Known(principal)
	}
	return kept, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c verifiedCredentials) Clone() credentials.TransportCredentials {
	c.TransportCredentials = c.TransportCredentials.Clone()
	return c
}

// tlsPeer is who is at the other end of a connection.
type tlsPeer struct {
	credentials.TLSInfo
	path atomic.Pointer[verifiedPath]
}

func (p *tlsPeer) chain() []*x509.Certificate { return p.State.PeerCertificates }

// verifiedPath is an outcome of identity.VerifyPeer that need not be computed
// again. It depends on the chain, on the roots and on the time: the first is the
// connection's, the second is the very pool, and the third changes nothing while
// every certificate that could be on the path is valid. Who the agent is and
// whether it is banned is no part of it.
type verifiedPath struct {
	id          spiffeid.ID
	roots       *x509.CertPool
	from, until time.Time
}

func (v *verifiedPath) valid(roots *x509.CertPool, now time.Time) bool {
	return v != nil && v.roots == roots && !now.Before(v.from) && !now.After(v.until)
}

// verifySVID is whose SVID the peer has shown.
func (a *Access) verifySVID(p *tlsPeer) (spiffeid.ID, error) {
	roots, now := a.cfg.Roots(), a.cfg.Clock()
	if v := p.path.Load(); v.valid(roots.Pool, now) {
		return v.id, nil
	}
	id, err := identity.VerifyPeer(p.State, a.cfg.TrustDomain, roots.Pool, now, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return id, err
	}
	v := &verifiedPath{id: id, roots: roots.Pool, from: p.chain()[0].NotBefore, until: p.chain()[0].NotAfter}
	for _, c := range slices.Concat(p.chain(), roots.Set.Roots) {
		if c.NotBefore.After(v.from) {
			v.from = c.NotBefore
		}
		if c.NotAfter.Before(v.until) {
			v.until = c.NotAfter
		}
	}
	p.path.Store(v)
	return id, nil
}
