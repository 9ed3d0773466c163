// Package scrape serves metrics and health over HTTP, where anybody who reaches the
// port may ask: what is held open there is bounded in number, in time and in bytes, so
// that it takes nothing of what its process is for.
//
// # Concurrency
//
// Serve may be called from any goroutine, once for a listener.
package scrape

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"signet.example/internal/openfiles"
)

const (
	// mostConnections at a time, of a process that may open many files. A scraper has
	// one, and needs it for milliseconds; each of many may write all that is asked for
	// once.
	mostConnections = 128
	// partOfFiles is the part of a process's files that they may take.
	partOfFiles = 16
	// asking is how long a request may take to come, answering how long its answer may
	// take to be read, idle how long a connection may wait for the next.
	asking, answering, idle = 5 * time.Second, 10 * time.Second, 30 * time.Second
)

// Serve serves h on l until ctx ends. Where there are too many connections, the one
// gives way that has been there longest, first of those on which nothing is asked.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	files, _ := openfiles.Limit()
	return serve(ctx, l, h, log, limit(files), answering)
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, most int, answering time.Duration) error {
	r := &visitors{most: most, order: map[net.Conn]int{}, asked: map[net.Conn]bool{}}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: asking, ReadTimeout: asking, WriteTimeout: answering, IdleTimeout: idle, MaxHeaderBytes: 16 << 10,
		ConnState: r.state, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // a scrape that is cut is made again
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %s: %w", l.Addr(), err)
	}
	return nil
}

// Open reports whether others than this host can reach what is served at an address, host:port;
// none do where it is empty.
func Open(address string) bool {
	if address == "" {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	a, notAddress := netip.ParseAddr(host)
	return err != nil || host != "localhost" && (notAddress != nil || !a.IsLoopback())
}

func limit(files uint64) int {
	return int(min(mostConnections, max(2, files/partOfFiles)))
}

// visitors are the connections that there are.
type visitors struct {
	most int

	mu    sync.Mutex        // guards the following
	count int               // of all that came
	order map[net.Conn]int  // when it came
	asked map[net.Conn]bool // those on which something is asked and not answered
}

// state implements http.Server.ConnState.
func (r *visitors) state(c net.Conn, s http.ConnState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch s {
	case http.StateNew:
		if len(r.order) >= r.most {
			old := r.oldest()
			delete(r.order, old)
			delete(r.asked, old)
			_ = old.Close() // whoever reads or writes it gets the error
		}
		r.count++
		r.order[c] = r.count
	case http.StateActive:
		if r.order[c] != 0 {
			r.asked[c] = true
		}
	case http.StateIdle:
		delete(r.asked, c)
	case http.StateClosed, http.StateHijacked:
		delete(r.order, c)
		delete(r.asked, c)
	}
}

// oldest is the connection that gives way; there is one. The caller holds mu.
func (r *visitors) oldest() net.Conn {
	var old net.Conn
	for c, came := range r.order {
		switch {
		case old == nil,
			r.asked[old] && !r.asked[c],
			r.asked[old] == r.asked[c] && came < r.order[old]:
			old = c
		}
	}
	return old
}
