//go:build bench

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/test/adsload"
)

// meshed is what there is of services, and of virtual nodes which call some of them. A node
// of one calls all.
type meshed struct{ services, nodes, backends int }

func (m meshed) node(n int) string {
	if m.nodes == 1 {
		return "n"
	}
	return fmt.Sprintf("n-%d", n%m.nodes)
}

// calls reports whether a node calls a service.
func (m meshed) calls(node, service int) bool {
	for j := range m.backends {
		if (node+j*97)%m.services == service {
			return true
		}
	}
	return m.nodes == 1
}

// of is what a node has when a service's route has changed so often.
func (m meshed) of(all adsConfig, node int, revisions map[int]int) adsConfig {
	c := adsConfig{ads.ClusterType: {}, ads.EndpointType: {}, ads.ListenerType: all[ads.ListenerType], ads.RouteType: {}}
	rc := &routev3.RouteConfiguration{Name: "r"}
	hosts := all[ads.RouteType]["r"].(*routev3.RouteConfiguration).GetVirtualHosts()
	for s := range m.services {
		if !m.calls(node, s) {
			continue
		}
		host := hosts[s]
		for _, t := range []string{ads.ClusterType, ads.EndpointType} {
			c[t][host.GetName()] = all[t][host.GetName()]
		}
		if n := revisions[s]; n > 0 {
			host = proto.CloneOf(host)
			host.GetRoutes()[0].GetRoute().Timeout = durationpb.New(time.Duration(n) * time.Second)
		}
		rc.VirtualHosts = append(rc.VirtualHosts, host)
	}
	c[ads.RouteType]["r"] = rc
	return c
}

// reached is how many streams have a service's route.
func (m meshed) reached(service, streams int) int {
	n := 0
	for s := range streams {
		if m.calls(s%m.nodes, service) {
			n++
		}
	}
	return n
}

// fanOut is what one server needed.
type fanOut struct {
	cpu, last, idle time.Duration
	storm, stormCPU time.Duration // until all streams had everything
	rss, each       float64       // with all streams, and of that for one
}

// TestBenchFanOut pushes one changed route to 1,000 streams from a server process that does
// nothing else: all see all 200 services, and each of 200 virtual nodes ten of them.
func TestBenchFanOut(t *testing.T) {
	const streams = 1000
	figures := make(map[string]fanOut)
	all, some := meshed{200, 1, 200}, meshed{200, 200, 10}
	runs := []struct {
		name, kind string
		of         meshed
		shared     int
	}{
		{"signet", "signet", all, 1},
		{"linear", "linear", all, 1},
		{"snapshot", "snapshot", all, 1},
		{"signet, some", "signet", some, 1},
		{"snapshot, some", "snapshot", some, 1},
		{"signet, shared", "signet", some, 50},
		{"snapshot, shared", "snapshot", some, 50},
	}
	for range 2 { // in turn, as other work on the machine comes and goes
		for _, r := range runs {
			f := measureFanOut(t, r.kind, r.of, streams, r.shared)
			if was, ok := figures[r.name]; !ok || f.cpu < was.cpu {
				figures[r.name] = f
			}
		}
	}
	ratio := func(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }
	mib := func(f fanOut) string { return fmt.Sprintf("%.0f MiB", f.rss) }
	kib := func(f fanOut) string { return fmt.Sprintf("%.0f KiB", f.each*1024) }
	ours, linear, snap := figures["signet"], figures["linear"], figures["snapshot"]
	report(t, "ADS: one route of 200 changed for 1,000 streams that have all of them (server process of its own; better of two runs)", []row{
		{"server CPU per push", ms(ours.cpu), ms(linear.cpu) + " linear cache", ratio(ours.cpu, linear.cpu), "≤ 1 ×"},
		{"server CPU per push", ms(ours.cpu), ms(snap.cpu) + " snapshot cache", ratio(ours.cpu, snap.cpu), ""},
		{"last stream has it, median", ms(ours.last), ms(linear.last) + " linear, " + ms(snap.last) + " snapshot", ratio(ours.last, linear.last), "≤ 300 ms"},
		{"all 1,000 connect and have everything", ms(ours.storm), ms(linear.storm) + " linear, " + ms(snap.storm) + " snapshot", ratio(ours.storm, linear.storm), ""},
		{"server CPU of that", ms(ours.stormCPU), ms(linear.stormCPU) + " linear, " + ms(snap.stormCPU) + " snapshot", ratio(ours.stormCPU, linear.stormCPU), ""},
		{"memory with all streams", mib(ours), mib(linear) + " linear cache", fmt.Sprintf("%.2f", ours.rss/linear.rss), "≤ 0.3 ×"},
		{"memory with all streams", mib(ours), mib(snap) + " snapshot cache", fmt.Sprintf("%.2f", ours.rss/snap.rss), ""},
		{"CPU of 5 s idle", ms(ours.idle), ms(linear.idle) + " linear cache", "", "0"},
	})
	ours, snap = figures["signet, some"], figures["snapshot, some"]
	shared, theirs := figures["signet, shared"], figures["snapshot, shared"]
	report(t, "ADS: the same for 1,000 streams of 200 virtual nodes that call 10 of 200 services each: 50 have the route", []row{
		{"server CPU per push", ms(ours.cpu), ms(snap.cpu) + " snapshot cache", ratio(ours.cpu, snap.cpu), ""},
		{"last stream has it, median", ms(ours.last), ms(snap.last) + " snapshot cache", ratio(ours.last, snap.last), "≤ 300 ms"},
		{"all 1,000 connect and have everything", ms(ours.storm), ms(snap.storm) + " snapshot cache", ratio(ours.storm, snap.storm), ""},
		{"memory with all streams", mib(ours), mib(snap) + " snapshot cache", fmt.Sprintf("%.2f", ours.rss/snap.rss), ""},
		{"memory of one idle stream with a connection of its own, after a collection", kib(ours), kib(snap) + " snapshot cache", fmt.Sprintf("%.2f", ours.each/snap.each), "≤ 50 KiB"},
		{"memory of one idle stream of 50 on a connection, after a collection", kib(shared), kib(theirs) + " snapshot cache", fmt.Sprintf("%.2f", shared.each/theirs.each), "≤ 25 KiB"},
	})
}

func measureFanOut(t *testing.T, kind string, m meshed, streams, shared int) fanOut {
	t.Helper()
	const pushes = 8
	child := startADSChild(t, kind, m)
	defer child.stop(t)
	pid := child.cmd.Process.Pid
	child.say(t, "collect")
	empty, before, began := rss(t, pid), cpu(t, pid), time.Now()
	conns := make([]*grpc.ClientConn, (streams+shared-1)/shared)
	for i := range conns {
		conn, err := grpc.NewClient("unix:"+child.socket, append(ads.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		must(t, err)
		defer func() { _ = conn.Close() }() // nothing is lost
		conns[i] = conn
	}
	load := adsload.Load{
		Streams: streams,
		Conn:    func(n int) (grpc.ClientConnInterface, error) { return conns[n/shared], nil },
		Node:    func(n int) *corev3.Node { return &corev3.Node{Id: m.node(n)} },
	}.Start(t.Context())
	defer load.Stop()
	wait := func(n int) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		must(t, load.Await(ctx, n))
	}
	wait(streams)
	f := fanOut{storm: time.Since(began), stormCPU: cpu(t, pid) - before}
	time.Sleep(time.Second)
	before = cpu(t, pid)
	var lasts []time.Duration
	for push := range pushes {
		start := time.Now()
		child.say(t, "push")
		wait(m.reached(push%m.services, streams))
		lasts = append(lasts, time.Since(start))
		time.Sleep(200 * time.Millisecond) // until the answers are in
	}
	f.cpu, f.last = (cpu(t, pid)-before)/pushes, percentile(lasts, 0.5)
	before = cpu(t, pid)
	time.Sleep(5 * time.Second)
	f.idle, f.rss = cpu(t, pid)-before, rss(t, pid)
	child.say(t, "collect")
	f.each = (rss(t, pid) - empty) / float64(streams)
	return f
}

// adsChild is the server process.
type adsChild struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	socket string
}

// startADSChild runs this test binary again as a server.
func startADSChild(t *testing.T, kind string, m meshed) *adsChild {
	t.Helper()
	c := &adsChild{socket: filepath.Join(socketDir(t), "xds.sock")}
	c.cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestADSChild$") //nolint:gosec // this binary
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("SIGNET_BENCH_ADS=%s %d %d %d %s", kind, m.services, m.nodes, m.backends, c.socket))
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

// say sends a line and waits until it was obeyed.
func (c *adsChild) say(t *testing.T, line string) {
	t.Helper()
	_, err := fmt.Fprintln(c.in, line)
	must(t, err)
	c.expect(t, "done")
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

// TestADSChild is the server process of TestBenchFanOut: "push" changes the route of the next
// service, "collect" gives back what is garbage and what pools hold.
func TestADSChild(t *testing.T) {
	args := strings.Fields(os.Getenv("SIGNET_BENCH_ADS"))
	if len(args) != 5 {
		t.Skip("only as a child process")
	}
	var m meshed
	_, err := fmt.Sscan(strings.Join(args[1:4], " "), &m.services, &m.nodes, &m.backends)
	must(t, err)
	r, all, revisions := newRival(t.Context(), args[0]), newADSConfig(m.services, 0, 1), map[int]int{}
	for n := range m.nodes {
		must(t, r.publishTo(m.node(n), m.of(all, n, revisions)))
	}
	stop, err := r.serveUnix(t.Context(), args[4])
	must(t, err)
	defer stop()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for push := 0; lines.Scan(); fmt.Println("done") {
		if lines.Text() == "collect" {
			debug.FreeOSMemory()
			debug.FreeOSMemory() // what a sync.Pool has goes with the second
			continue
		}
		service := push % m.services
		push++
		revisions[service]++
		for n := range m.nodes {
			if m.calls(n, service) {
				must(t, r.publishTo(m.node(n), m.of(all, n, revisions)))
			}
		}
	}
}
