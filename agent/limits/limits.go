package limits

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"signet.example/attestation"
	"signet.example/internal/openfiles"
	"signet.example/internal/overload"
	"signet.example/internal/paced"
	"signet.example/internal/underway"
	"signet.example/internal/unixsock"
)

// What one local process, one user and all of them together may hold of a socket.
const (
	maxConnsPerPID = 32
	maxConnsPerUID = 1024
	maxConns       = 4096
	// maxStreamsPerConn bounds the calls on one connection: no less than a proxy has
	// under way on one (proxy.WayoutStreams).
	maxStreamsPerConn = 32
	Handshake         = 5 * time.Second
	// GuestTime is how long a connection may stay whose process is given nothing:
	// no view, no identity, no answer.
	GuestTime = 10 * time.Second
)

// What may be under way to the sockets, in bytes: sent by local processes, and not
// whole or not read. A message of an Envoy has 1 MiB at most.
var mostLocal = underway.Most{Conn: 2 << 20, Peer: 8 << 20, All: 16 << 20, Others: 16 << 20}

// most is what one process, one user and all of them together may have. Of all, own
// is kept for the proxies that the agent runs, and known for users that are known here,
// since users are no bound: a person may have as many of them as /etc/subuid gives.
type most struct{ pid, uid, all, own, known int }

// ofProxy is what one proxy may have of own.
func (m most) ofProxy() int { return max(1, min(m.pid, m.own/4)) }

// ofKnown is what one user may have of known.
func (m most) ofKnown() int { return max(1, m.known/4) }

// anybody is what is left for who comes.
func (m most) anybody() int { return m.all - m.own - m.known }

// mostStreams are fewer than the connections would allow: every stream is looked
// at again with each change of what the agent has.
var mostStreams = most{pid: 256, uid: 1024, all: 4096, own: 1024, known: 1024}

// How often processes of users that are not known here may come in a second, to all of the
// sockets or with a call to one server, and how often at once: each of them, those of one
// user, and all together.
// Whoever has a Binding or an Entry is known by the first time that it comes; who comes
// more often would have the agent read /proc all the time.
const (
	processPerSecond, processBurst     = 20, 50
	userPerSecond, userBurst           = 300, 300
	strangersPerSecond, strangersBurst = 500, 1000
)

// callsPerSecond is how often one process of a user that is known may ask for keys, and how
// often at once: each time it is looked at anew, which takes the agent 0.2 ms.
const callsPerSecond, callsBurst = 2000, 2000

// filesPerConn: a connection and the pidfd of its peer.
const filesPerConn = 2

// mostConns is for one of the Sockets, each with a Tally of its own: together
// they leave half of the files that this process may open for other things.
func mostConns(files uint64) most {
	all := int(min(maxConns, max(4, files/2/uint64(filesPerConn*Sockets))))
	uid := min(maxConnsPerUID, all/4)
	return most{pid: min(maxConnsPerPID, uid), uid: uid, all: all, own: all / 4, known: all / 4}
}

// Tally counts what is open by who has it.
type Tally struct {
	most  most
	pace  *pace              // nil where who comes has passed a Door
	calls *paced.Each[int32] // how often each process of a user that is known may come; nil: as it likes
	knows func(uid uint32) bool

	mu       sync.Mutex
	total    int            // of anybody; all are guarded by mu
	pids     map[int32]int  // of anybody and known, by process
	uids     map[uint32]int // of anybody, by user
	known    int            // of what is kept for users that are known
	familiar map[uint32]int // of known, by user
	own      int            // of what is kept for proxies
	names    map[string]int // of own, by proxy
}

// Sockets is how many sockets an agent has: xds, workload, authz and wayout.
const Sockets = 4

// New is of the connections of one socket, which come by a Door.
func New(knows func(uid uint32) bool) *Tally {
	files, _ := openfiles.Limit()
	return tallyOf(mostConns(files), nil, knows)
}

func tallyOf(m most, p *pace, knows func(uid uint32) bool) *Tally {
	return &Tally{most: m, pace: p, knows: knows, pids: map[int32]int{}, uids: map[uint32]int{}, familiar: map[uint32]int{}, names: map[string]int{}}
}

// ErrTooMany refuses what would be more than there may be.
var ErrTooMany = errors.New("too many are open")

// Count is how many are open.
func (t *Tally) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total + t.known + t.own
}

// enter counts one in and returns how to count it out. Where anybody may have no more,
// or its user comes too often and is not known, it is asked of proxy whether it is one
// that the agent runs. Only that costs anything, where it is one.
func (t *Tally) enter(c unixsock.Peer, proxy func() (name string, ok bool)) (leave func(), err error) {
	known := t.knows(c.UID)
	switch {
	case known && t.calls != nil && !t.calls.Allow(c.PID):
		err = fmt.Errorf("%w: process %d of user %d makes more than %d calls in a second", ErrTooMany, c.PID, c.UID, callsPerSecond)
	case known || t.pace == nil || t.pace.allows(c):
		if leave, err = t.enterAnybody(c); err == nil {
			return leave, nil
		}
		if known {
			if leave, err := t.enterKnown(c); err == nil {
				return leave, nil
			}
		}
	default:
		err = fmt.Errorf("%w: process %d of user %d, of whom nothing is known here, comes too often", ErrTooMany, c.PID, c.UID)
	}
	name, ok := proxy() // without the lock: it asks the kernel
	if !ok {
		return nil, err
	}
	return t.enterProxy(name)
}

func (t *Tally) enterProxy(name string) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.names[name] >= t.most.ofProxy():
		return nil, fmt.Errorf("%w: proxy %s has %d of those that are kept for proxies", ErrTooMany, name, t.names[name])
	case t.own >= t.most.own:
		return nil, fmt.Errorf("%w: proxies have the %d that are kept for them", ErrTooMany, t.own)
	}
	t.own++
	t.names[name]++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.own--
		less(t.names, name)
	}), nil
}

func (t *Tally) enterKnown(c unixsock.Peer) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pids[c.PID] >= t.most.pid || t.familiar[c.UID] >= t.most.ofKnown() || t.known >= t.most.known {
		return nil, ErrTooMany
	}
	t.known++
	t.pids[c.PID]++
	t.familiar[c.UID]++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.known--
		less(t.pids, c.PID)
		less(t.familiar, c.UID)
	}), nil
}

func less[K comparable](count map[K]int, of K) {
	if count[of]--; count[of] == 0 {
		delete(count, of)
	}
}

func (t *Tally) enterAnybody(c unixsock.Peer) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.pids[c.PID] >= t.most.pid:
		return nil, fmt.Errorf("%w: process %d has %d", ErrTooMany, c.PID, t.pids[c.PID])
	case t.uids[c.UID] >= t.most.uid:
		return nil, fmt.Errorf("%w: user %d has %d", ErrTooMany, c.UID, t.uids[c.UID])
	case t.total >= t.most.anybody():
		return nil, fmt.Errorf("%w: %d", ErrTooMany, t.total)
	}
	t.total++
	t.pids[c.PID]++
	t.uids[c.UID]++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.total--
		less(t.pids, c.PID)
		less(t.uids, c.UID)
	}), nil
}

// PerProcess has one process have up to n, where its user may have as many.
func (t *Tally) PerProcess(n int) { t.most.pid = min(n, t.most.uid) }

// EnterConn counts one in for the peer of c.
func (t *Tally) EnterConn(c *net.UnixConn, a *attestation.Attestor) (who unixsock.Peer, leave func(), err error) {
	who, err = unixsock.PeerOf(c)
	if err != nil {
		return who, nil, err
	}
	leave, err = t.enter(who, func() (string, bool) { return a.Proxy(c) })
	return who, leave, err
}

// enterCall counts one in for the peer of a call.
func (t *Tally) enterCall(ctx context.Context) (leave func(), err error) {
	p, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "internal error: a call of a peer that was not attested")
	}
	leave, err = t.enter(unixsock.Peer{PID: int32(p.PID()), UID: p.UID()}, p.Proxy) //nolint:gosec // it was one
	if err != nil {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	return leave, nil
}

// Stream is an interceptor that counts the streams of a server.
func (t *Tally) Stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	leave, err := t.enterCall(stream.Context())
	if err != nil {
		return err
	}
	defer leave()
	return next(srv, stream)
}

// Unary is Stream for calls with one answer.
func (t *Tally) Unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	leave, err := t.enterCall(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return next(ctx, req)
}

// counted are credentials that count a connection before they attest its peer.
// One that is too many is closed before its first byte is read.
type counted struct {
	credentials.TransportCredentials
	attestor *attestation.Attestor
	tally    *Tally
	guests   *Guests
	room     *underway.Room
	refused  func(c unixsock.Peer, err error) // told of what does not come in
}

// ServerHandshake implements credentials.TransportCredentials.
func (c counted) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var methods underway.Methods
	if s, ok := conn.(*serving); ok {
		conn, methods = s.UnixConn, s.methods
	}
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("internal error: not a Unix socket")
	}
	who, leave, err := c.tally.EnterConn(local, c.attestor)
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
	in := &countedConn{attested, c.guests.enter(attested, info, leave)}
	kept := c.room.Enter(in, fmt.Sprintf("user %d", who.UID), func(_ string, err error) { c.refused(who, err) })
	kept.Takes(methods)
	if c.guests.Knows(who.UID) {
		kept.Known("")
	}
	c.guests.seat(info, kept)
	return kept, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c counted) Clone() credentials.TransportCredentials { return c }

// OnClose is a connection that calls leave when it is closed.
func OnClose(c net.Conn, leave func()) net.Conn { return &countedConn{c, leave} }

type countedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// Memory is what an agent may have where it was not told: the host is its applications'.
func Memory() int64 { return min(mostMemory, overload.Memory()/4) }

const mostMemory = 1 << 30

// NewUnread is for what may be under way to the sockets.
func NewUnread() *underway.Room { return underway.New(mostLocal) }

// NewStreams is for the streams of one server.
func NewStreams(knows func(uid uint32) bool) *Tally { return tallyOf(mostStreams, newPace(), knows) }

// NewCalls is NewStreams for a server whose calls cost much, whoever makes them.
func NewCalls(knows func(uid uint32) bool) *Tally {
	t := NewStreams(knows)
	t.calls = paced.New[int32](callsPerSecond, callsBurst)
	return t
}

// Guests are connections whose process has been found to have nothing here yet.
// They are closed after a time: what they hold, others may want. It knows the users of
// those that were given something, too.
type Guests struct {
	Within time.Duration
	// Named reports whether an entry or a binding names a user.
	Named  func(uid uint32) bool
	guests sync.Map // *guest by *attestation.Peer, which each connection has for itself

	mu    sync.Mutex
	given map[uint32]bool // users; guarded by mu
}

// guest is one connection of them.
type guest struct {
	timer *time.Timer
	conn  *underway.Conn // nil until it has its seat, which is before any call
}

// maxKnown bounds the users that are known for what was given to them.
const maxKnown = 4096

// Knows reports whether an entry or a binding names a user, or something was given to a
// process of it. It asks nothing of the kernel.
func (n *Guests) Knows(uid uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.given[uid] || n.Named != nil && n.Named(uid)
}

// enter begins the time of a connection. What it returns ends it, with leave.
func (n *Guests) enter(c net.Conn, info credentials.AuthInfo, leave func()) func() {
	i, ok := info.(attestation.PeerInfo)
	if !ok {
		return leave
	}
	n.guests.Store(i.Peer, &guest{timer: time.AfterFunc(n.Within, func() { _ = c.Close() })}) // whoever reads it gets the error
	return func() {
		n.end(i.Peer)
		leave()
	}
}

// seat notes how a connection is counted by what it sends.
func (n *Guests) seat(info credentials.AuthInfo, c *underway.Conn) {
	i, ok := info.(attestation.PeerInfo)
	if !ok {
		return
	}
	if g, ok := n.guests.Load(i.Peer); ok {
		n.guests.CompareAndSwap(i.Peer, g, &guest{g.(*guest).timer, c}) //nolint:forcetypeassert // what it holds
	}
}

// end ends the time of a connection, and returns it if it had not ended.
func (n *Guests) end(p *attestation.Peer) *guest {
	g, ok := n.guests.LoadAndDelete(p)
	if !ok {
		return nil
	}
	was := g.(*guest) //nolint:forcetypeassert // what it holds
	was.timer.Stop()
	return was
}

// Stay lets the connection of a process stay: it has something here.
func (n *Guests) Stay(p *attestation.Peer) {
	g := n.end(p)
	if g == nil {
		return
	}
	if g.conn != nil {
		g.conn.Served()
	}
	n.Know(p.UID())
}

// Know notes a user that something was given to. Where there are too many, one of them
// is forgotten, whichever, and not all.
func (n *Guests) Know(uid uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.given[uid] {
		return
	}
	if n.given == nil {
		n.given = map[uint32]bool{}
	}
	for other := range n.given {
		if len(n.given) < maxKnown {
			break
		}
		delete(n.given, other)
	}
	n.given[uid] = true
}

// StayFor is Stay for the process behind a call.
func (n *Guests) StayFor(ctx context.Context) {
	if p, ok := attestation.PeerFromContext(ctx); ok {
		n.Stay(p)
	}
}

// Options are those of every gRPC server on a socket of the agent; refused
// is told of connections that are closed without an answer.
func Options(a *attestation.Attestor, n *Guests, room *underway.Room, refused func(unixsock.Peer, error)) []grpc.ServerOption {
	return append(room.Options(),
		grpc.Creds(counted{a.Credentials(), a, New(n.Knows), n, room, refused}),
		// Most connections are idle: gRPC would keep 32 KiB for each.
		grpc.ReadBufferSize(8<<10),
		grpc.ConnectionTimeout(Handshake),
		grpc.MaxConcurrentStreams(maxStreamsPerConn),
		grpc.MaxHeaderListSize(16<<10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

// ofServer is the listener of one server.
type ofServer struct {
	net.Listener
	methods underway.Methods
}

// serving is a connection to it.
type serving struct {
	*net.UnixConn
	methods underway.Methods
}

// Accept implements net.Listener.
func (l ofServer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if local, ok := c.(*net.UnixConn); ok && err == nil {
		return &serving{local, l.methods}, nil
	}
	return c, err
}

// Serve serves on l until ctx ends: s has all of its services. The connections of the room end
// then, too.
func Serve(ctx context.Context, s *grpc.Server, l net.Listener, room *underway.Room) error {
	stop := context.AfterFunc(ctx, func() { // streams of local peers have no end of their own
		room.Close()
		s.Stop()
	})
	defer stop()
	if err := s.Serve(ofServer{l, underway.MethodsOf(s)}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
