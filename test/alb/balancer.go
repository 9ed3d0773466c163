package alb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Balancer is a load balancer with one target group: it calls each target over connections that
// it keeps, one request at a time on each, says whom it calls for, and never sends a request
// twice. It implements [http.RoundTripper].
type Balancer struct {
	from   netip.Addr
	health string

	mu      sync.Mutex // guards the following, and what is in targets
	targets []*target
	next    int
}

// target is one of the group.
type target struct {
	at      string
	healthy bool
	checks  int                // in a row that say otherwise
	end     context.CancelFunc // of its health checks
	idle    []*kept
}

// kept is a connection on which nothing is under way.
type kept struct {
	net.Conn
	r *bufio.Reader
}

const (
	// checkEvery is a fifth of the least that AWS has, so that a test takes less time.
	checkEvery   = time.Second
	checkTimeout = 2 * time.Second
	// threshold is how many checks in a row make a target healthy, or not.
	threshold = 2
)

// NewBalancer has one that calls from an address of this host, and checks targets by a path.
func NewBalancer(from, health string) *Balancer {
	return &Balancer{from: netip.MustParseAddr(from), health: health}
}

// Register has a target, host:port, that is called when its health checks have succeeded.
func (b *Balancer) Register(t testing.TB, at string) {
	ctx, cancel := context.WithCancel(t.Context())
	g := &target{at: at, end: cancel}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = append(b.targets, g)
	go b.check(ctx, g) // ends with Deregister, or the test
}

// Deregister has no new request go to a target. What is under way is answered.
func (b *Balancer) Deregister(at string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = slices.DeleteFunc(b.targets, func(g *target) bool {
		if g.at != at {
			return false
		}
		g.end()
		for _, c := range g.idle {
			_ = c.Close() // nothing is under way on it
		}
		g.idle = nil
		return true
	})
}

// Healthy reports whether a target is called.
func (b *Balancer) Healthy(at string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.targets, func(g *target) bool { return g.at == at && g.healthy })
}

func (b *Balancer) check(ctx context.Context, g *target) {
	for tick := time.NewTicker(checkEvery); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.at+b.health, nil)
		if err == nil {
			req.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
			req.Close = true
			err = b.checkOnce(ctx, g, req)
		}
		b.mu.Lock()
		if g.checks++; (err == nil) == g.healthy {
			g.checks = 0
		} else if g.checks == threshold {
			g.healthy, g.checks = !g.healthy, 0
		}
		b.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

func (b *Balancer) checkOnce(ctx context.Context, g *target, req *http.Request) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c, err := b.dial(ctx, g.at)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // one check is one connection
	resp, err := c.call(ctx, req)    //nolint:bodyclose // it has been read
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}

func (b *Balancer) dial(ctx context.Context, at string) (*kept, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(b.from, 0))}
	c, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	return &kept{c, bufio.NewReader(c)}, nil
}

// choose is the next healthy target, or where none is the next one, and a connection to it where there is one.
func (b *Balancer) choose() (*target, *kept) {
	b.mu.Lock()
	defer b.mu.Unlock()
	none := !slices.ContainsFunc(b.targets, func(g *target) bool { return g.healthy })
	for range b.targets {
		b.next++
		if g := b.targets[b.next%len(b.targets)]; g.healthy || none {
			for len(g.idle) > 0 {
				c := g.idle[len(g.idle)-1]
				g.idle = g.idle[:len(g.idle)-1]
				if c.open() {
					return g, c
				}
				_ = c.Close() // the target did
			}
			return g, nil
		}
	}
	return nil, nil
}

// keep has the connection for another request, if the target is still one.
func (b *Balancer) keep(g *target, c *kept) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Contains(b.targets, g) {
		g.idle = append(g.idle, c)
		return
	}
	_ = c.Close() // nothing is under way on it
}

// RoundTrip implements http.RoundTripper.
func (b *Balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	g, c := b.choose()
	if g == nil {
		return nil, errors.New("503: there is no target")
	}
	if c == nil {
		var err error
		if c, err = b.dial(req.Context(), g.at); err != nil {
			return nil, err
		}
	}
	req = req.Clone(req.Context())
	for name, value := range map[string]string{
		"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443", "X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678",
	} {
		req.Header.Set(name, value)
	}
	resp, err := c.call(req.Context(), req)
	if err != nil {
		_ = c.Close() // it is of no more use
		return nil, fmt.Errorf("502: %w", err)
	}
	if resp.Close {
		_ = c.Close() // the target wants it
	} else {
		b.keep(g, c)
	}
	return resp, nil
}

// call sends a request, and reads its answer as a whole.
func (c *kept) call(ctx context.Context, req *http.Request) (*http.Response, error) {
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return nil, err
		}
	}
	if err := req.Write(c); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.r, req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, errors.Join(err, c.SetDeadline(time.Time{}))
}

// open reports whether the other end has neither closed the connection nor sent what nobody asked for.
func (c *kept) open() bool {
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	var seen error
	err = raw.Control(func(fd uintptr) {
		_, _, seen = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && errors.Is(seen, unix.EAGAIN)
}
