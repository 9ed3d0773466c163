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
	requests  int
	perSecond float64
	p50, p99  time.Duration
}

// run asks for d, after a fifth of it that is not counted. Each answer must be a
// 200; before and after are called around what is counted.
func (c closedLoop) run(t *testing.T, d time.Duration, before, after func()) loaded {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	begin := time.Now().Add(d / 5)
	end := begin.Add(d)
	for range c.conns {
		wg.Go(func() {
			took, err := c.one(t.Context(), begin, end)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
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
	return loaded{len(all), float64(len(all)) / d.Seconds(), percentile(all, 0.5), percentile(all, 0.99)}
}

// one connection's loop.
func (c closedLoop) one(ctx context.Context, begin, end time.Time) ([]time.Duration, error) {
	conn, err := (&tls.Dialer{Config: c.tls}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := []byte("GET " + c.path + " HTTP/1.1\r\nHost: orders.test.internal\r\nUser-Agent: bench\r\nAccept: application/json\r\n" +
		"X-Request-Id: 2f1c5a38-7a39-4f0e-8a5e-bb3c0bde0a11\r\n\r\n")
	in := bufio.NewReader(conn)
	var took []time.Duration
	for {
		start := time.Now()
		if start.After(end) {
			return took, nil
		}
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		if err := readAnswer(in); err != nil {
			return nil, fmt.Errorf("%s%s: %w", c.address, c.path, err)
		}
		if start.After(begin) {
			took = append(took, time.Since(start))
		}
	}
}

// readAnswer reads one answer of HTTP/1.1 that has a length.
func readAnswer(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answered %q", bytes.TrimSpace(line))
	}
	length := 0
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	_, err = io.CopyN(io.Discard, in, int64(length))
	return err
}
