package envoytest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// Backend is a small HTTP server that answers with its name. A query "?ms=300"
// delays the answer; HealthPath is answered after the health delay.
type Backend struct {
	// Name is the body of every answer.
	Name string
	// Address is where it listens, on loopback.
	Address string

	served atomic.Int64
}

// HealthPath is the path that a health check of a Backend asks for.
const HealthPath = "/healthz"

// StartBackend starts a backend that takes health to answer a health check,
// and ends it with the test.
func StartBackend(t testing.TB, name string, health time.Duration) *Backend {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{Name: name, Address: l.Addr().String()}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == HealthPath {
			time.Sleep(health)
			return
		}
		b.served.Add(1)
		if ms, err := strconv.Atoi(r.URL.Query().Get("ms")); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		_, _ = fmt.Fprint(w, name) // the client may have gone
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("backend %s: %v", name, err)
		}
	})
	return b
}

// Served is how many requests it answered, without health checks.
func (b *Backend) Served() int64 { return b.served.Load() }

// Port is the port of Address.
func (b *Backend) Port() uint32 {
	_, port, err := net.SplitHostPort(b.Address)
	if err != nil {
		panic("internal error: " + err.Error()) // Address comes from the listener
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return uint32(n)
}
