//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"
	"time"
)

// closedLoop asks one address over kept connections, each as fast as answers
// come. It speaks as little HTTP as it needs, so that its own work on the shared
// processors is small.
type closedLoop struct {
	address string
	tls     *tls.Config
	path    string
	conns   int
}

// loaded is what a closed loop saw.
type loaded struct {
	requests  int // all, also those with another answer than 200
	refused   int
	perSecond float64
	p50, p99  time.Duration
}

// run asks for d, after a fifth of it that is not counted. An answer other than
// 200 is counted apart; before and after are called around what is counted.
func (c closedLoop) run(t *testing.T, d time.Duration, before, after func()) loaded {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	refused := 0
	var wg sync.WaitGroup
	begin := time.Now().Add(d / 5)
	end := begin.Add(d)
	for range c.conns {
		wg.Go(func() {
			took, other, err := c.one(t.Context(), begin, end)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			refused += other
		})
	}
	time.Sleep(time.Until(begin))
	before()
	time.Sleep(time.Until(end))
	after()
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return loaded{len(all), refused, float64(len(all)) / d.Seconds(), percentile(all, 0.5), percentile(all, 0.99)}
}

// one connection's loop.
func (c closedLoop) one(ctx context.Context, begin, end time.Time) (took []time.Duration, refused int, err error) {
	conn, err := (&tls.Dialer{Config: c.tls}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	request := []byte("GET " + c.path + " HTTP/1.1\r\nHost: orders.test.internal\r\nUser-Agent: bench\r\nAccept: application/json\r\n" +
		"X-Request-Id: 2f1c5a38-7a39-4f0e-8a5e-bb3c0bde0a11\r\n\r\n")
	in := bufio.NewReader(conn)
	for {
		start := time.Now()
		if start.After(end) {
			return took, refused, nil
		}
		if _, err := conn.Write(request); err != nil {
			return nil, 0, err
		}
		ok, err := readAnswer(in)
		if err != nil {
			return nil, 0, fmt.Errorf("%s%s: %w", c.address, c.path, err)
		}
		if start.After(begin) {
			took = append(took, time.Since(start))
			if !ok {
				refused++
			}
		}
	}
}

// readAnswer reads one answer of HTTP/1.1 that has a length; ok means 200.
func readAnswer(in *bufio.Reader) (ok bool, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	ok = bytes.HasPrefix(line, []byte("HTTP/1.1 200 "))
	length := 0
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return false, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return false, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, in, int64(length))
	return ok, err
}
