package scrape

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const page = 4 << 20

// start serves a page of 4 MiB, so that whoever does not read holds its answer.
func start(t *testing.T, most int) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, page)) })
		if err := serve(ctx, l, h, slog.New(slog.DiscardHandler), most, time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l.Addr().String()
}

func get(t *testing.T, addr string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close() // read to its end
	return err
}

func hold(t *testing.T, addr string, n int, request string) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // it may be closed
		_, _ = io.WriteString(c, request)   // it may be closed
		all = append(all, c)
	}
	return all
}

// open counts those that the other end has not closed.
func open(conns []net.Conn) int {
	n := 0
	for _, c := range conns {
		for came := int64(1); came > 0; { // what was sent before it was closed comes first
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			var err error
			came, err = io.Copy(io.Discard, c)
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				break // its end
			}
			if came == 0 {
				n++
			}
		}
	}
	return n
}

func TestHeldConnectionsTakeNoMoreThanTheirRoomAndKeepNobodyOut(t *testing.T) {
	const most = 8
	for _, request := range []string{"", "GET /me", strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 60)} {
		addr := start(t, most)
		held := hold(t, addr, 5*most, request)
		if err := get(t, addr); err != nil {
			t.Errorf("beside %d connections that said %.10q: %v", len(held), request, err)
		}
		if n := open(held); n > most {
			t.Errorf("%d connections that said %.10q are open, of %d that may", n, request, most)
		}
	}
}

func TestAnAnswerThatNobodyReadsEnds(t *testing.T) {
	addr := start(t, 8)
	held := hold(t, addr, 4, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	time.Sleep(1500 * time.Millisecond)
	for _, c := range held {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, err := io.Copy(io.Discard, c); err != nil || n >= page {
			t.Errorf("%d bytes, %v: it was to be cut", n, err)
		}
	}
}

func TestAScraperTakesASmallPartOfTheFiles(t *testing.T) {
	for _, files := range []uint64{0, 64, 1024, 1 << 20} {
		if n := limit(files); n < 2 || n > mostConnections || (n > 2 && uint64(n) > files/8) {
			t.Errorf("of %d files %d", files, n)
		}
	}
}
