package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// mostUnderWay questions are asked of others at a time, by UDP and TCP together; for one beyond
	// them the oldest is answered that it failed (SERVFAIL).
	mostUnderWay = 2048
	// mostConnections by TCP at a time; for one beyond them the oldest is closed.
	mostConnections = 1024
	// idle is how long a connection may say nothing.
	idle = 5 * time.Second
	// pause is how long is waited after an error of a socket.
	pause = 100 * time.Millisecond
)

// Server answers at one address.
type Server struct {
	udp       *net.UDPConn
	tcp       net.Listener
	upstreams []netip.AddrPort
	names     Names
	log       *slog.Logger
	underWay  room
	conns     room
}

// Listen takes the address; nil where the configuration has none.
func Listen(ctx context.Context, c Config) (*Server, error) {
	if c.Listen == "" {
		return nil, nil //nolint:nilnil // as said
	}
	ups, err := c.upstreams(resolvConf)
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	u, err := new(net.ListenConfig).ListenPacket(ctx, "udp", l.Addr().String())
	if err != nil {
		_ = l.Close() // nobody came
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &Server{udp: u.(*net.UDPConn), tcp: l, upstreams: ups, underWay: room{most: mostUnderWay}, conns: room{most: mostConnections}}, nil //nolint:forcetypeassert // of network udp
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.tcp.Addr() }

// Close gives the address back, of one that does not run.
func (s *Server) Close() error {
	_ = s.udp.Close() // as the other
	return s.tcp.Close()
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context, names Names, log *slog.Logger) {
	s.names, s.log = names, log
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // what is asked then is asked elsewhere
	var wg sync.WaitGroup
	wg.Go(func() { s.serveUDP(ctx) })
	wg.Go(func() { s.serveTCP(ctx) })
	wg.Wait()
}

func (s *Server) serveUDP(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	buf := make([]byte, mostMessage+1)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if s.again(ctx, err) {
				continue
			}
			return
		}
		if n > mostMessage {
			continue
		}
		q, reply, done := answer(buf[:n], s.names)
		if done {
			s.send(reply, from)
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		asking, end := context.WithCancel(ctx)
		leave := s.underWay.enter(end)
		wg.Go(func() {
			defer end()
			defer leave()
			s.send(s.others(asking, "udp", q, msg), from)
		})
	}
}

// send is of a datagram: one that is lost is asked for again.
func (s *Server) send(reply []byte, to netip.AddrPort) {
	if reply != nil {
		_, _ = s.udp.WriteToUDPAddrPort(reply, to)
	}
}

// others is what other name servers say.
func (s *Server) others(ctx context.Context, network string, q question, msg []byte) []byte {
	reply, err := s.forward(ctx, network, q, msg)
	if err != nil {
		s.log.DebugContext(ctx, "no name server answers", slog.Any("err", err))
		return q.failure()
	}
	return reply
}

// again reports whether to go on after an error of a socket: it is closed when ctx ends, and else
// what failed, as where there are no files left, is tried again in a moment.
func (s *Server) again(ctx context.Context, err error) bool {
	if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
		return false
	}
	s.log.WarnContext(ctx, "dns", slog.Any("err", err))
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return true
}

func (s *Server) serveTCP(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			if s.again(ctx, err) {
				continue
			}
			return
		}
		leave := s.conns.enter(func() { _ = conn.Close() }) // its client asks anew
		wg.Go(func() {
			defer leave()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s.serveConn(ctx, conn)
		})
	}
}

func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }() // the client's to ask anew
	for {
		if conn.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		msg, err := readTCP(conn, mostMessage)
		if err != nil {
			return
		}
		q, reply, done := answer(msg, s.names)
		if !done {
			asking, end := context.WithCancel(ctx)
			leave := s.underWay.enter(end)
			reply = s.others(asking, "tcp", q, msg)
			leave()
			end()
		}
		if reply == nil || conn.SetDeadline(time.Now().Add(idle)) != nil || writeTCP(conn, reply) != nil {
			return
		}
	}
}
