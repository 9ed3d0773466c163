//go:build bench

package bench

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"signet.example/test/envoytest"
)

// socketDir is short enough for a socket's path.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o711))
	return dir
}

// TestBenchChangeServed measures how long a changed route takes until a real
// Envoy answers by it, through our server and through go-control-plane's, on
// Envoys that run side by side and are changed in turn.
func TestBenchChangeServed(t *testing.T) {
	const changes = 20
	var rows []row
	for _, n := range []int{10, 200} {
		kinds := []string{"signet", "linear", "snapshot"}
		took := make(map[string][]time.Duration)
		sides := make(map[string]*side)
		for _, k := range kinds {
			sides[k] = newSide(t, k, n)
		}
		for i := range changes {
			for _, k := range kinds {
				took[k] = append(took[k], sides[k].change(t, i+1))
			}
		}
		ours := percentile(took["signet"], 0.5)
		for _, k := range kinds[1:] {
			beside := percentile(took[k], 0.5)
			rows = append(rows, row{
				figure: fmt.Sprintf("route changed → Envoy serves it, median of %d, %d clusters", changes, n),
				ours:   ms(ours), beside: ms(beside) + " " + k + " cache",
				ratio: fmt.Sprintf("%.2f", float64(ours)/float64(beside)), goal: "≤ 1.3 × in the same run",
			})
		}
		for _, s := range sides {
			s.envoy.Stop()
		}
	}
	report(t, "ADS: a change reaches Envoy", rows)
}

// side is one ADS server with its Envoy.
type side struct {
	n      int
	rival  rival
	envoy  *envoytest.Envoy
	client *http.Client
	url    string
}

func newSide(t *testing.T, kind string, n int) *side {
	t.Helper()
	s := &side{n: n, rival: newRival(t.Context(), kind), client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}}
	socket := filepath.Join(socketDir(t), "xds.sock")
	stop, err := s.rival.serveUnix(t.Context(), socket)
	must(t, err)
	t.Cleanup(stop)
	t.Cleanup(s.client.CloseIdleConnections)
	must(t, s.rival.publish(newADSConfig(n, 0, 1)))
	s.envoy = envoytest.Start(t, envoytest.Config{NodeID: "n", ADS: socket})
	s.envoy.WaitReady(t)
	s.envoy.Wait(t, "the listener is bound", func() bool {
		s.url = "http://" + s.envoy.Listeners(t)["l"] + "/"
		return s.url != "http:///"
	})
	s.await(t, 0)
	return s
}

// change publishes a revision and returns how long it took to be served.
func (s *side) change(t *testing.T, revision int) time.Duration {
	t.Helper()
	c := newADSConfig(s.n, revision, 1)
	start := time.Now()
	must(t, s.rival.publish(c))
	s.await(t, revision)
	return time.Since(start)
}

// await asks until Envoy answers with the revision.
func (s *side) await(t *testing.T, revision int) {
	t.Helper()
	want := fmt.Sprint(revision)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
		must(t, err)
		req.Host = "revision"
		resp, err := s.client.Do(req)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		must(t, err)
		if string(body) == want {
			return
		}
	}
	t.Fatalf("revision %d was not served in time", revision)
}
