package e2e

import (
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
)

func uid() int { return os.Getuid() }

// certs that the server knows.
func certs(t *testing.T, w *meshtest.World, all bool) []*api.Cert {
	t.Helper()
	stream, err := w.Admin.Certs(t.Context(), &api.CertsRequest{All: all})
	if err != nil {
		t.Fatalf("certs: %v", err)
	}
	var out []*api.Cert
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("certs: %v", err)
		}
		out = append(out, answer.GetCerts()...)
	}
}

// proxySerials tells the serial that each proxy's identity holds now.
func proxySerials(t *testing.T, w *meshtest.World) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range certs(t, w, false) {
		if c.GetConsumer() == api.SVIDStatus_PROXY {
			out[c.GetSpiffeId()] = c.GetSerial()
		}
	}
	return out
}

// eventually fails the test unless f holds within the bound.
func eventually(t *testing.T, bound time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > bound {
			t.Fatalf("%s: not within %s", what, bound)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// slow is an application that takes its time on one path.
type slow struct {
	path string
	by   time.Duration
	next http.Handler
}

func (s slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == s.path {
		time.Sleep(s.by)
	}
	s.next.ServeHTTP(w, r)
}
