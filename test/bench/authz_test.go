//go:build bench

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// eightRules are the allow rules of one service: three callers, methods, paths
// with a wildcard, a deny rule. The sixth holds for what the benchmark asks.
const eightRules = `package signet.authz.orders

web := "spiffe://test.example/test/web"
billing := "spiffe://test.example/test/billing"
support := "spiffe://test.example/test/support"

readers := {web, billing, support}

allow contains "web may list orders" if { input.source.spiffe_id == web; input.request.method == "GET"; input.request.path == "/orders" }
allow contains "web may place orders" if { input.source.spiffe_id == web; input.request.method == "POST"; input.request.path == "/orders" }
allow contains "billing may read invoices" if { input.source.spiffe_id == billing; input.request.method == "GET"; input.request.segments[0] == "invoices" }
allow contains "billing may settle" if { input.source.spiffe_id == billing; input.request.method == "PUT"; glob.match("/invoices/*/settled", ["/"], input.request.path) }
allow contains "support may read customers" if { input.source.spiffe_id == support; input.request.method in {"GET", "HEAD"}; input.request.segments[0] == "customers" }
allow contains "readers may read items" if { input.source.spiffe_id in readers; input.request.method in {"GET", "HEAD"}; glob.match("/orders/*/items", ["/"], input.request.path) }
allow contains "support may cancel" if { input.source.spiffe_id == support; input.request.method == "DELETE"; glob.match("/orders/*", ["/"], input.request.path) }
allow contains "a customer may read their own" if { input.source.spiffe_id == web; input.jwt.sub == input.request.segments[1]; input.request.segments[0] == "customers" }

deny contains "nobody reaches the admin pages" if input.request.segments[0] == "admin"
`

// TestBenchAuthorization measures one request through a real Envoy whose
// ext_authz filter asks the agent's authz process, beside the same Envoy's
// listener that asks a server which always says yes, and one that asks nobody.
// mTLS with keep-alive, answered by Envoy itself behind the filter.
func TestBenchAuthorization(t *testing.T) {
	dir := socketDir(t)
	must(t, os.Chmod(dir, 0o711))
	binary := filepath.Join(dir, "envoy")
	copyFile(t, parts.Envoy(t), binary)
	w := meshtest.Start(t, meshtest.Options{
		Policy: map[string]string{"orders.rego": eightRules},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("orders", ""),
			"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: orders}\n"+
				fmt.Sprintf("spec: {group: hosts, mesh: test, virtualNode: orders, selectors: [\"unix:path:%s\"]}\n", binary)),
	})
	always := startAlwaysOK(t)
	pki := newBenchPKI(t, "spiffe://test.example/test/web")
	t.Setenv("SIGNET_ENVOY", binary)
	e := envoytest.Start(t, envoytest.Config{NodeID: "bench", Bootstrap: authzListeners(pki, revisionOf(w), map[string]string{
		"signet": filepath.Join(w.AgentDir(), "authz.sock"), "always-ok": always.socket,
	})})
	e.WaitReady(t)
	b := &authzBench{
		envoy: e, pki: pki, addresses: e.Listeners(t), sums: map[string]*authzSum{},
		deciders: map[string][]int{"always-ok": {always.cmd.Process.Pid}, "signet": {child(t, w.Agent.PID(), "authz"), w.Agent.PID()}},
	}
	b.measure(t)
	report(t, "Authorization: one request through Envoy, 8 allow rules, the sixth holds", b.rows())
	memory := rss(t, b.deciders["signet"][0])
	report(t, "Authorization: the process that decides, under that load", []row{
		{"memory", fmt.Sprintf("%.0f MiB", memory), fmt.Sprintf("%.0f MiB always-OK server", rss(t, always.cmd.Process.Pid)), "", ""},
	})
}

// revisionOf waits until the agent has loaded the policy, and names it.
func revisionOf(w *meshtest.World) string {
	var revision string
	w.Await("policy at the agent", 20*time.Second, func() error {
		answer, err := w.Admin.Agents(w.Context(), &api.AgentsRequest{})
		if err != nil {
			return err
		}
		for _, a := range answer.GetAgents() {
			revision = a.GetReport().GetPolicyRevision()
		}
		if revision == "" {
			return fmt.Errorf("none is loaded")
		}
		return nil
	})
	return revision
}

// authzBench asks the listeners in turn.
type authzBench struct {
	envoy     *envoytest.Envoy
	pki       *benchPKI
	addresses map[string]string
	deciders  map[string][]int // the process that decides, then one that keeps its records
	sums      map[string]*authzSum
}

// authzSum is what one listener needed, over all rounds.
type authzSum struct {
	one, many []loaded
	// CPU of a request at 32 connections.
	envoy, decider, keeper time.Duration
	requests, refused      int
}

func (b *authzBench) measure(t *testing.T) {
	t.Helper()
	const rounds = 3
	kinds := []string{"base", "always-ok", "signet"}
	for range rounds {
		for _, k := range kinds {
			if b.sums[k] == nil {
				b.sums[k] = &authzSum{}
			}
			b.round(t, k, b.sums[k])
		}
	}
}

func (b *authzBench) round(t *testing.T, kind string, s *authzSum) {
	t.Helper()
	c := closedLoop{address: b.addresses[kind], tls: b.pki.client, path: "/orders/4711/items", conns: 1}
	nothing := func() {}
	s.one = append(s.one, c.run(t, time.Second, nothing, nothing))
	c.conns = 32
	pids := append([]int{b.envoy.PID()}, b.deciders[kind]...)
	used := []*time.Duration{&s.envoy, &s.decider, &s.keeper}
	got := c.run(t, 2*time.Second, func() {
		for i, pid := range pids {
			*used[i] -= cpu(t, pid)
		}
	}, func() {
		for i, pid := range pids {
			*used[i] += cpu(t, pid)
		}
	})
	s.many = append(s.many, got)
	s.requests += got.requests
	s.refused += got.refused
	if s.refused*100 > s.requests {
		t.Fatalf("%s: %d of %d requests were refused: this measures something else", kind, s.refused, s.requests)
	}
}

// rows of the table; each figure is the median of the rounds.
func (b *authzBench) rows() []row {
	base, floor, ours := b.sums["base"], b.sums["always-ok"], b.sums["signet"]
	rate := func(s *authzSum) float64 { return median(s.many, func(l loaded) float64 { return l.perSecond }) }
	late := func(ls []loaded, f func(loaded) time.Duration) float64 {
		return median(ls, func(l loaded) float64 { return float64(f(l)) })
	}
	p50 := func(l loaded) time.Duration { return l.p50 }
	p99 := func(l loaded) time.Duration { return l.p99 }
	latency := func(what string, of func(*authzSum) []loaded, f func(loaded) time.Duration, goal string) row {
		x, y, z := late(of(ours), f), late(of(floor), f), late(of(base), f)
		return row{what, us(x), us(y) + " always-OK, " + us(z) + " no filter", fmt.Sprintf("%.2f", x/y), goal}
	}
	one, many := func(s *authzSum) []loaded { return s.one }, func(s *authzSum) []loaded { return s.many }
	each := func(s *authzSum, d time.Duration) float64 { return float64(d) / float64(s.requests) }
	extra := func(s *authzSum) float64 { return each(s, s.envoy+s.decider+s.keeper) - each(base, base.envoy) }
	return []row{
		{"requests/s, 32 connections", fmt.Sprintf("%.0f", rate(ours)), fmt.Sprintf("%.0f always-OK, %.0f no filter", rate(floor), rate(base)), fmt.Sprintf("%.2f", rate(ours)/rate(floor)), "0.57 (Rego embedded: 5.3 k of 9.3 k)"},
		latency("p50, 32 connections", many, p50, ""),
		latency("p99, 32 connections", many, p99, ""),
		{"answered 503: no decision in time, 32 connections", fmt.Sprintf("%d of %d", ours.refused, ours.requests), fmt.Sprintf("%d of %d always-OK", floor.refused, floor.requests), "", "0"},
		latency("p50, 1 connection", one, p50, "1.5 (Rego embedded)"),
		latency("p99, 1 connection", one, p99, ""),
		{"extra CPU of a request over no filter", us(extra(ours)), us(extra(floor)) + " always-OK", fmt.Sprintf("%.2f", extra(ours)/extra(floor)), "2.3 (Rego embedded: 260 of 113 µs)"},
		{"of that, in Envoy", us(each(ours, ours.envoy) - each(base, base.envoy)), us(each(floor, floor.envoy) - each(base, base.envoy)), "", ""},
		{"of that, in the process that decides", us(each(ours, ours.decider)), us(each(floor, floor.decider)), "", ""},
		{"of that, in the agent, which keeps the records", us(each(ours, ours.keeper)), "none are kept", "", ""},
	}
}

// alwaysOK is a server that allows, in a process of its own.
type alwaysOK struct {
	cmd    *exec.Cmd
	socket string
}

func startAlwaysOK(t *testing.T) *alwaysOK {
	t.Helper()
	a := &alwaysOK{socket: filepath.Join(socketDir(t), "ok.sock")}
	a.cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAlwaysOKChild$") //nolint:gosec // this binary
	a.cmd.Env = append(os.Environ(), "SIGNET_BENCH_ALWAYS_OK="+a.socket)
	in, err := a.cmd.StdinPipe()
	must(t, err)
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	a.cmd.Stderr = os.Stderr
	must(t, a.cmd.Start())
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		_ = a.cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the always-OK server said %q, %v", line, err)
	}
	return a
}

// TestAlwaysOKChild is the process of startAlwaysOK; it ends with its input.
func TestAlwaysOKChild(t *testing.T) {
	socket := os.Getenv("SIGNET_BENCH_ALWAYS_OK")
	if socket == "" {
		t.Skip("only as a child process")
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	must(t, err)
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, yes{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		g.Stop()
	}()
	fmt.Println("ready")
	must(t, g.Serve(l))
}

// yes allows everything; it sets as little as an answer needs.
type yes struct {
	authv3.UnimplementedAuthorizationServer
}

// Check implements authv3.AuthorizationServer.
func (yes) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption(nil),
	}}}, nil
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer func() { _ = in.Close() }() // read to its end
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}
