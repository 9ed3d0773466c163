//go:build bench

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/ads"
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

// TestBenchFanOut pushes one changed route to 1,000 streams, each with its own
// connection, from a server process that does nothing else.
func TestBenchFanOut(t *testing.T) {
	const streams, pushes, clusters = 1000, 8, 200
	figures := make(map[string]fanOut)
	kinds := []string{"signet", "linear"}
	for range 2 { // in turn, as other work on the machine comes and goes
		for _, k := range kinds {
			f := measureFanOut(t, k, streams, pushes, clusters)
			if was, ok := figures[k]; !ok || f.cpu < was.cpu {
				figures[k] = f
			}
		}
	}
	ours, beside := figures["signet"], figures["linear"]
	ratio := func(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }
	report(t, "ADS: one route of 200 changed for 1,000 streams (server process of its own; better of two runs)", []row{
		{"server CPU per push", ms(ours.cpu), ms(beside.cpu) + " linear cache", ratio(ours.cpu, beside.cpu), "≤ 1 ×"},
		{"last stream has it, median", ms(ours.last), ms(beside.last) + " linear cache", ratio(ours.last, beside.last), "≤ 300 ms"},
		{"memory with all streams", fmt.Sprintf("%.0f MiB", ours.rss), fmt.Sprintf("%.0f MiB linear cache", beside.rss), fmt.Sprintf("%.2f", ours.rss/beside.rss), "≤ 1 ×"},
		{"CPU of 5 s idle", ms(ours.idle), ms(beside.idle) + " linear cache", "", "0"},
	})
}

// fanOut is what one server needed.
type fanOut struct {
	cpu, last, idle time.Duration
	rss             float64
}

func measureFanOut(t *testing.T, kind string, streams, pushes, clusters int) fanOut {
	t.Helper()
	child := startADSChild(t, kind, clusters)
	defer child.stop(t)
	got := make(chan struct{}, streams)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range streams {
		wg.Go(func() { followRoutes(ctx, child.socket, got) })
	}
	wait := func() {
		for range streams {
			select {
			case <-got:
			case <-time.After(2 * time.Minute):
				t.Fatal("a stream was left behind")
			}
		}
	}
	wait()
	time.Sleep(time.Second)
	pid := child.cmd.Process.Pid
	before := cpu(t, pid)
	var lasts []time.Duration
	for range pushes {
		start := time.Now()
		child.push(t)
		wait()
		lasts = append(lasts, time.Since(start))
		time.Sleep(200 * time.Millisecond) // until the answers are in
	}
	f := fanOut{cpu: (cpu(t, pid) - before) / time.Duration(pushes), last: percentile(lasts, 0.5), rss: rss(t, pid)}
	before = cpu(t, pid)
	time.Sleep(5 * time.Second)
	f.idle = cpu(t, pid) - before
	return f
}

// followRoutes is a delta client that acknowledges all, and tells of each route configuration.
func followRoutes(ctx context.Context, socket string, got chan<- struct{}) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return
	}
	next := []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType}
	ask := func(n *corev3.Node) {
		_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: n, TypeUrl: next[0], ResourceNamesSubscribe: []string{"*"}})
		next = next[1:]
	}
	ask(&corev3.Node{Id: "n"})
	for {
		resp, err := stream.Recv()
		if err != nil {
			return
		}
		_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()})
		if resp.GetTypeUrl() == ads.RouteType {
			got <- struct{}{}
		}
		if len(next) > 0 {
			ask(nil)
		}
	}
}

// adsChild is the server process.
type adsChild struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	socket string
}

// startADSChild runs this test binary again as a server.
func startADSChild(t *testing.T, kind string, clusters int) *adsChild {
	t.Helper()
	c := &adsChild{socket: filepath.Join(socketDir(t), "xds.sock")}
	c.cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestADSChild$") //nolint:gosec // this binary
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("SIGNET_BENCH_ADS=%s %d %s", kind, clusters, c.socket))
	var err error
	c.in, err = c.cmd.StdinPipe()
	must(t, err)
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	c.cmd.Stderr = os.Stderr
	must(t, c.cmd.Start())
	c.out = bufio.NewScanner(out)
	c.expect(t, "ready")
	return c
}

func (c *adsChild) expect(t *testing.T, want string) {
	t.Helper()
	if !c.out.Scan() || c.out.Text() != want {
		t.Fatalf("the server process said %q, want %q", c.out.Text(), want)
	}
}

func (c *adsChild) push(t *testing.T) {
	t.Helper()
	_, err := fmt.Fprintln(c.in, "push")
	must(t, err)
}

func (c *adsChild) stop(t *testing.T) {
	t.Helper()
	_ = c.in.Close() // which ends it
	for c.out.Scan() {
		continue
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("the server process: %v", err)
	}
}

// TestADSChild is the server process of TestBenchFanOut: a line of input is a push.
func TestADSChild(t *testing.T) {
	args := strings.Fields(os.Getenv("SIGNET_BENCH_ADS"))
	if len(args) != 3 {
		t.Skip("only as a child process")
	}
	var clusters int
	_, err := fmt.Sscan(args[1], &clusters)
	must(t, err)
	r := newRival(t.Context(), args[0])
	must(t, r.publish(newADSConfig(clusters, 0, 1)))
	stop, err := r.serveUnix(t.Context(), args[2])
	must(t, err)
	defer stop()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for revision := 1; lines.Scan(); revision++ {
		must(t, r.publish(newADSConfig(clusters, revision, 1)))
	}
}
