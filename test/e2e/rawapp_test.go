package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// arrival is one request as its bytes reached the application.
type arrival struct {
	line    string
	headers textproto.MIMEHeader
}

// target of the request line, unread.
func (a arrival) target() string {
	_, rest, _ := strings.Cut(a.line, " ")
	target, _, _ := strings.Cut(rest, " HTTP/")
	return target
}

// tokens of a list-valued header, however it was written.
func (a arrival) tokens(header string) []string {
	var out []string
	for _, line := range a.headers.Values(header) {
		for part := range strings.SplitSeq(line, ",") {
			out = append(out, strings.ToLower(strings.TrimSpace(part)))
		}
	}
	return out
}

// recorder is an application that records requests before any library has made
// sense of them, and answers 200 to all; a websocket upgrade it accepts, and
// echoes what it is sent. It is a meshtest.RawApp.
type recorder struct {
	conns    atomic.Int64
	mu       sync.Mutex
	arrivals []arrival // guarded by mu
}

// take what arrived since the last time.
func (r *recorder) take() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.arrivals
	r.arrivals = nil
	return out
}

// ServeHTTP implements meshtest.App; a RawApp is not served by it.
func (r *recorder) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotImplemented)
}

// ServeListener implements meshtest.RawApp.
func (r *recorder) ServeListener(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		r.conns.Add(1)
		wg.Go(func() {
			defer func() { _ = conn.Close() }() // one request each
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			r.one(conn)
		})
	}
}

func (r *recorder) one(conn net.Conn) {
	in := textproto.NewReader(bufio.NewReader(conn))
	line, err := in.ReadLine()
	if err != nil {
		return
	}
	headers, err := in.ReadMIMEHeader()
	if err != nil {
		headers = textproto.MIMEHeader{"Unreadable": {err.Error()}}
	}
	r.mu.Lock()
	r.arrivals = append(r.arrivals, arrival{line, headers})
	r.mu.Unlock()
	if strings.EqualFold(headers.Get("Upgrade"), "websocket") {
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"); err == nil {
			_, _ = io.Copy(conn, in.R) // until the caller is done
		}
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") // the proxy sees what it gets
}
