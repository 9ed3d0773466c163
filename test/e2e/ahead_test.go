package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// pool is an HTTP client with connections that it opened and has not used: as many calls
// as wait for the one that is busy open one each, and are answered on that one.
type pool struct {
	*http.Client
	url            string
	opened, closed atomic.Int64
}

// openedAhead is the pool of a node's application with so many connections ahead.
func openedAhead(t *testing.T, w *meshtest.World, node, url string, ahead int) *pool {
	t.Helper()
	p := &pool{Client: w.Client(node), url: url}
	release := make(chan struct{})
	transport := p.Transport.(*http.Transport) //nolint:forcetypeassert // as meshtest makes it
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if p.opened.Add(1) > 1 {
			<-release
		}
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &counted{Conn: c, closed: &p.closed}, err
	}
	busy, err := p.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	for range ahead {
		waiting.Go(func() { p.call(t) })
	}
	for end := time.Now().Add(10 * time.Second); p.opened.Load() <= int64(ahead); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%d connections were opened for %d calls", p.opened.Load(), ahead+1)
			break
		}
	}
	if _, err := io.Copy(io.Discard, busy.Body); err != nil {
		t.Error(err)
	}
	_ = busy.Body.Close() // read to its end
	waiting.Wait()
	close(release)
	return p
}

// call is one that the client does not repeat by itself.
func (p *pool) call(t *testing.T) {
	answer, err := p.Post(p.url, "text/plain", strings.NewReader("once"))
	if err != nil {
		t.Errorf("a call of a pool: %v", err)
		return
	}
	_, _ = io.Copy(io.Discard, answer.Body) // its status is enough
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("a call of a pool: %s", answer.Status)
	}
}

// counted is a connection whose end is counted.
type counted struct {
	net.Conn
	once   sync.Once
	closed *atomic.Int64
}

func (c *counted) Close() error {
	c.once.Do(func() { c.closed.Add(1) })
	return c.Conn.Close()
}
