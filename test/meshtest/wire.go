package meshtest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Wire is a TCP connection's way over a network that is far and loses packets, as its
// two ends see it: what is sent arrives after Delay, and what is lost is sent again,
// with all that is behind it waiting.
type Wire struct {
	Delay time.Duration // each way
	Loss  float64       // of what is sent, from 0 to 1
}

// resent is the least time after which TCP sends again what was not acknowledged.
const resent = 200 * time.Millisecond

// Through returns an address from which each connection goes over the wire to another
// one, until the test ends.
func (w Wire) Through(t testing.TB, to string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(ctx, c, to) })
		}
	})
	t.Cleanup(func() {
		end()
		_ = l.Close() // ends Accept
		running.Wait()
	})
	return l.Addr().String()
}

// carry is one connection, until one of its ends closes it.
func (w Wire) carry(ctx context.Context, from net.Conn, to string) {
	defer func() { _ = from.Close() }() // the other end may have
	if !sleep(ctx, 2*w.Delay) {         // the handshake of TCP
		return
	}
	there, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = there.Close() }()
	ctx, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(ctx, func() { _ = errors.Join(from.Close(), there.Close()) })()
	var both sync.WaitGroup
	both.Go(func() { defer end(); w.send(ctx, there, from) })
	both.Go(func() { defer end(); w.send(ctx, from, there) })
	both.Wait()
}

type packet struct {
	content []byte
	arrives time.Time
}

// send carries one direction until its end, whose news takes as long.
func (w Wire) send(ctx context.Context, to io.Writer, from io.Reader) {
	under := make(chan packet, 1024)
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		defer close(under)
		for last := time.Now(); ; {
			b := make([]byte, 1400)
			n, err := from.Read(b)
			arrives := time.Now().Add(w.Delay)
			if rand.Float64() < w.Loss {
				arrives = arrives.Add(resent + 2*w.Delay)
			}
			if arrives.Before(last) {
				arrives = last // in order
			}
			last = arrives
			select {
			case under <- packet{b[:n], arrives}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	for p := range under {
		if !sleep(ctx, time.Until(p.arrives)) {
			return
		}
		if _, err := to.Write(p.content); err != nil {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
