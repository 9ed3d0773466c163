package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
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

// anotherHost writes the configuration of an agent beside the World's, and its token.
func anotherHost(t *testing.T, w *meshtest.World, name, proxies string) (config, token string) {
	t.Helper()
	token, config = filepath.Join(w.Dir, name+".token"), filepath.Join(w.Dir, name+".yaml")
	addresses, err := w.Addresses(w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server: %s\ntoken_file: %s\ndata_dir: %s\nsocket_dir: %s\nmetrics: 127.0.0.1:0\nenvoy: %s\ndrain_time: 1s\nproxy_user: \"%d\"\nproxies:\n%s",
		addresses.Agents, token, filepath.Join(w.Dir, name+"-data"), filepath.Join(w.Dir, name), parts.Envoy(t), os.Getuid(), proxies)
	for path, content := range map[string]string{token: w.Token(), config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config, token
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
