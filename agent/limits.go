package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"signet.example/attestation"
	"signet.example/internal/unixsock"
)

// What one local process, one user and all of them together may hold of a socket.
const (
	maxConnsPerPID = 32
	maxConnsPerUID = 1024
	maxConns       = 4096
	// maxStreamsPerConn bounds the calls on one connection.
	maxStreamsPerConn = 32
	socketHandshake   = 5 * time.Second
)

// most is what one process, one user and all of them together may have.
type most struct{ pid, uid, all int }

// mostStreams are fewer than the connections would allow: every stream is looked
// at again with each change of what the agent has.
var mostStreams = most{pid: 256, uid: 1024, all: 4096}

// filesPerConn: a connection and the pidfd of its peer.
const filesPerConn = 2

// mostConns is for one of so many sockets, each with a tally of its own: together
// they leave half of the files that this process may open for other things.
func mostConns(files uint64, sockets int) most {
	all := int(min(maxConns, max(4, files/2/uint64(filesPerConn*sockets)))) //nolint:gosec // a few
	uid := min(maxConnsPerUID, all/4)
	return most{pid: min(maxConnsPerPID, uid), uid: uid, all: all}
}

// openFiles is how many files this process may open.
func openFiles() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what POSIX systems begin with
	}
	return limit.Cur
}

// tally counts what is open by who has it.
type tally struct {
	most most

	mu    sync.Mutex
	total int            // the three are guarded by mu
	pids  map[int32]int  // by process
	uids  map[uint32]int // by user
}

func newTally() *tally { return tallyOf(mostConns(openFiles(), len(new(sockets).all()))) }

func tallyOf(m most) *tally { return &tally{most: m, pids: map[int32]int{}, uids: map[uint32]int{}} }

var errTooMany = errors.New("too many are open")

// count is how many are open.
func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// enter counts one in and returns how to count it out.
func (t *tally) enter(c unixsock.Peer) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.pids[c.PID] >= t.most.pid:
		return nil, fmt.Errorf("%w: process %d has %d", errTooMany, c.PID, t.pids[c.PID])
	case t.uids[c.UID] >= t.most.uid:
		return nil, fmt.Errorf("%w: user %d has %d", errTooMany, c.UID, t.uids[c.UID])
	case t.total >= t.most.all:
		return nil, fmt.Errorf("%w: %d", errTooMany, t.total)
	}
	t.total++
	t.pids[c.PID]++
	t.uids[c.UID]++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.total--
		if t.pids[c.PID]--; t.pids[c.PID] == 0 {
			delete(t.pids, c.PID)
		}
		if t.uids[c.UID]--; t.uids[c.UID] == 0 {
			delete(t.uids, c.UID)
		}
	}), nil
}

// enterConn counts one in for the peer of c.
func (t *tally) enterConn(c *net.UnixConn) (leave func(), err error) {
	who, err := unixsock.PeerOf(c)
	if err != nil {
		return nil, err
	}
	return t.enter(who)
}

// authzTally is of connections that are being attested. An Envoy may open all of its
// own at once.
func authzTally() *tally {
	t := newTally()
	t.most.pid = min(maxAuthzConns, t.most.uid)
	return t
}

// maxAuthzConns bounds the ext_authz connections of one proxy: an Envoy has one
// for each of its workers, and one that is not ours any more must not keep the
// others from being answered.
const maxAuthzConns = 256

// shares counts the open connections of each proxy.
type shares struct {
	most int
	mu   sync.Mutex
	open map[string]int // guarded by mu
}

// enter counts a connection of who, which counts itself out when it is closed.
func (s *shares) enter(c net.Conn, who string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[who] >= s.most {
		return nil, fmt.Errorf("%w: %s has %d", errTooMany, who, s.most)
	}
	s.open[who]++
	return &countedConn{c, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[who]--; s.open[who] == 0 {
			delete(s.open, who)
		}
	})}, nil
}

// grants cut the connections of what is granted no longer, and no others.
type grants struct {
	mu      sync.Mutex
	open    map[uint64]map[net.Conn]struct{} // by grant; both guarded by mu
	revoked map[uint64]bool
}

// enter keeps a connection with its grant until it is closed.
func (g *grants) enter(c net.Conn, grant uint64) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.revoked[grant] {
		return nil, errNotBound
	}
	if g.open == nil {
		g.open = map[uint64]map[net.Conn]struct{}{}
	}
	if g.open[grant] == nil {
		g.open[grant] = map[net.Conn]struct{}{}
	}
	g.open[grant][c] = struct{}{}
	return &countedConn{c, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if delete(g.open[grant], c); len(g.open[grant]) == 0 {
			delete(g.open, grant)
		}
	})}, nil
}

// revoke closes what is open of the grants, and refuses what is still to come of them.
func (g *grants) revoke(all []uint64) {
	g.mu.Lock()
	g.revoked = make(map[uint64]bool, len(all))
	var cut []net.Conn
	for _, grant := range all {
		g.revoked[grant] = true
		for c := range g.open[grant] {
			cut = append(cut, c)
		}
	}
	g.mu.Unlock()
	for _, c := range cut {
		_ = c.Close() // whoever reads it ends, and counts it out
	}
}

// stream is an interceptor that counts the streams of a server.
func (t *tally) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	p, ok := attestation.PeerFromContext(stream.Context())
	if !ok {
		return status.Error(codes.Internal, "internal error: a stream of a peer that was not attested")
	}
	leave, err := t.enter(unixsock.Peer{PID: int32(p.PID()), UID: p.UID()}) //nolint:gosec // it was one
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	defer leave()
	return next(srv, stream)
}

// unary is stream for calls with one answer.
func (t *tally) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	p, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "internal error: a call of a peer that was not attested")
	}
	leave, err := t.enter(unixsock.Peer{PID: int32(p.PID()), UID: p.UID()}) //nolint:gosec // it was one
	if err != nil {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	defer leave()
	return next(ctx, req)
}

// counted are credentials that count a connection before they attest its peer.
// One that is too many is closed before its first byte is read.
type counted struct {
	credentials.TransportCredentials
	tally   *tally
	refused func(c unixsock.Peer, err error) // told of what does not come in
}

// ServerHandshake implements credentials.TransportCredentials.
func (c counted) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	who, err := unixsock.PeerOf(conn)
	if err != nil {
		return nil, nil, err
	}
	leave, err := c.tally.enter(who)
	if err != nil {
		c.refused(who, err)
		return nil, nil, err
	}
	attested, info, err := c.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		leave()
		c.refused(who, err)
		return nil, nil, err
	}
	return &countedConn{attested, leave}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c counted) Clone() credentials.TransportCredentials { return c }

type countedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// socketOptions are those of every gRPC server on a socket of the agent; refused
// is told of connections that are closed without an answer.
func socketOptions(creds credentials.TransportCredentials, refused func(unixsock.Peer, error)) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(counted{creds, newTally(), refused}),
		grpc.ConnectionTimeout(socketHandshake),
		grpc.MaxConcurrentStreams(maxStreamsPerConn),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// serveGRPC serves on l until ctx ends.
func serveGRPC(ctx context.Context, s *grpc.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, s.Stop) // streams of local peers have no end of their own
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
