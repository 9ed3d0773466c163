package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/dev"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
)

// churn is a mesh of which something changes all the time: shop is served by shop-1 and
// shop-2, which have proxies, and by a node without one whose name changes.
type churn struct {
	w      *meshtest.World
	rng    *rand.Rand
	green  int    // the number in the third target's name
	plain  string // where that target is
	mode   int    // of shop-2's listener, of modes
	extra  []int  // nodes and services that come and go
	next   int
	routes int // how many routes there are before the one that takes all
	step   int
}

// modes of a listener, there and back: plaintext, both, mTLS alone.
var modes = []string{"DISABLED", "PERMISSIVE", "STRICT", "PERMISSIVE"}

func (c *churn) greenName() string { return fmt.Sprintf("green-%d", c.green) }

func (c *churn) greenNode() string {
	return strings.Replace(meshtest.VirtualNode(c.greenName(), ""), c.greenName()+".test.internal", c.plain, 1)
}

// router leads to all three, by weights of its own, with some routes before that no request takes.
func (c *churn) router() string {
	text := meshtest.Weighted("shop", "shop-1", 1+c.rng.IntN(40), "shop-2", 1+c.rng.IntN(40), c.greenName(), 1+c.rng.IntN(20))
	text += fmt.Sprintf("        retryPolicy: {maxRetries: %d, httpRetryEvents: [gateway-error], perRetryTimeout: {unit: s, value: %d}}\n", c.rng.IntN(3), 5+c.rng.IntN(5))
	for i := range c.routes {
		text += fmt.Sprintf("    - name: r%d\n      priority: %d\n      httpRoute:\n        match: {prefix: /, headers: [{name: x-churn, match: {exact: \"%d\"}}]}\n        action: {weightedTargets: [{virtualNodeRef: {name: shop-%d}, weight: 1}]}\n", i, i, c.rng.IntN(1000), 1+i%2)
	}
	return text
}

// shop is shop-1's or shop-2's node; extra is of its listener.
func (c *churn) shop(n int) string {
	extra := fmt.Sprintf("      timeout: {http: {perRequest: {unit: s, value: %d}}}\n", 8+c.rng.IntN(8))
	if n == 2 {
		tls := strings.Replace(meshtest.Strict("test.example", "shop-2"), "STRICT", modes[c.mode%len(modes)], 1)
		return meshtest.VirtualNode("shop-2", tls)
	}
	if c.rng.IntN(2) == 0 {
		extra += slowHealth
	}
	return meshtest.VirtualNode("shop-1", extra)
}

func (c *churn) front() string {
	backends := []string{"shop"}
	for _, n := range c.extra {
		backends = append(backends, fmt.Sprintf("extra-%d", n))
	}
	return meshtest.VirtualNode("front", "", backends...)
}

func (c *churn) manifests() string {
	return meshtest.Join(meshtest.Mesh(), c.front(), c.shop(1), c.shop(2), c.greenNode(), c.router(), meshtest.ServiceOfRouter("shop", "shop"))
}

// apply is one change; a server that is being restarted is asked again.
func (c *churn) apply(what string, manifest string) string {
	c.call(what, func() error { _, err := c.w.TryApply(manifest); return err })
	return what
}

func (c *churn) remove(kind, name string) {
	c.call("delete "+name, func() error {
		_, err := c.w.Admin.Delete(c.w.Context(), &api.DeleteRequest{Kind: kind, Mesh: "test", Name: name})
		return err
	})
}

func (c *churn) call(what string, f func() error) {
	c.w.T.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "Unavailable") || time.Now().After(end) {
			c.w.T.Fatalf("%s: %v", what, err)
		}
	}
}

// poison is refused, each time for another reason.
func (c *churn) poison() string {
	bad := []string{
		meshtest.Weighted("shop", "nobody", 1),
		meshtest.Weighted("shop", "shop-1", 0),
		meshtest.VirtualNode("shop-1", "      timeout: {http: {perRequest: {unit: s, value: -1}}}\n"),
		strings.Replace(meshtest.Weighted("shop", "shop-1", 1), "{prefix: /}", "{path: {regex: \"(\"}}", 1),
		meshtest.VirtualNode("front", "", "shop", "nowhere-"+strings.Repeat("x", 300)),
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: shop}\nspec: {routes: [\n",
	}[c.step/10%6]
	c.call("poison", func() error {
		_, err := c.w.TryApply(bad)
		if err == nil {
			c.w.T.Errorf("this was applied:\n%s", bad)
		} else if strings.Contains(err.Error(), "Unavailable") {
			return err
		}
		return nil
	})
	return "poison"
}

// change makes the next change and says what it was.
func (c *churn) change() string {
	c.step++
	if c.step%10 == 0 {
		return c.poison()
	}
	switch c.step % 9 {
	case 0, 5:
		return c.apply("weights", c.router())
	case 1:
		c.routes = c.rng.IntN(6)
		return c.apply("routes", c.router())
	case 2:
		old := c.greenName()
		c.green++
		c.apply("target renamed", meshtest.Join(c.greenNode(), c.router()))
		c.remove("virtualnode", old)
		return "target renamed to " + c.greenName()
	case 3:
		return c.apply("cluster changed in place", c.shop(1))
	case 4, 8:
		c.mode++
		return c.apply("shop-2 is "+modes[c.mode%len(modes)], c.shop(2))
	case 6:
		n := c.next
		c.next++
		c.extra = append(c.extra, n)
		name := fmt.Sprintf("extra-%d", n)
		return c.apply("node added", meshtest.Join(meshtest.VirtualNode(name, ""), meshtest.ServiceOfNode(name, name), c.front()))
	}
	if len(c.extra) < 3 {
		return c.apply("weights", c.router())
	}
	name := fmt.Sprintf("extra-%d", c.extra[0])
	c.extra = c.extra[1:]
	c.apply("backend removed", c.front())
	c.remove("virtualservice", meshtest.HostOf(name))
	c.remove("virtualnode", name)
	return "node removed"
}

// underWay is how many requests are at most: 1,000 a second of which 50 take 0.3 s have some 21 where one takes 6 ms.
// With more, a host that has become slow gets slower, until connections end before what is on them.
const underWay = 64

// newConnections in a second are what the way out is asked about, beside those that the proxies
// make anew: a share of the requests would be the more the more requests there are.
const newConnections = 40

// Everything of a mesh changes five times a second, one change in ten is refused, a replica
// comes and goes, certificates live for seconds, and the server is restarted twice. It goes on
// until so many requests have an answer and so many changes are made, however long a host takes
// that stands still for a while: what was due meanwhile is sent then. One that gets anything but the
// answer of an application, or none within 10 s, fails the test.
func TestAMeshThatChangesAllTheTimeFailsNoRequest(t *testing.T) {
	const rate, changesPerSecond = 1000, 5
	seconds := meshtest.Soak(60, 5*60)
	spare, err := dev.ReserveLoopback(2, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spare.Close() }) // the processes that used them have ended
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &churn{rng: rand.New(rand.NewPCG(seed, 0))}
	c.plain = spare.Addresses[0]
	behind(t, c.plain, patient("green"))
	apps := map[string]meshtest.App{}
	for _, n := range []string{"shop-1", "shop-2"} {
		apps[n] = slow{path: "/healthz", by: 100 * time.Millisecond, next: patient(n)}
	}
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: 15 * time.Second, Nodes: []string{"front", "shop-1", "shop-2"}, Apps: apps, Manifests: c.manifests() +
			strings.ReplaceAll(replicas("replica"), "virtualNode: orders", "virtualNode: shop-1"),
	})
	c.w = w
	seen := map[string]bool{}
	eventually(t, 20*time.Second, "all three targets", func() bool {
		a, err := meshtest.Do(t, w.Client("front"), "GET", shop)
		if err == nil && a.Status == http.StatusOK {
			seen[a.Body] = true
		}
		return len(seen) == 3
	})
	load := envoytest.Load{
		URL: shop, Rate: rate, NewConnections: float64(newConnections) / rate, Slow: 0.05, SlowFor: 300 * time.Millisecond,
		Proxy: &url.URL{Scheme: "http", Host: w.Nodes["front"].EgressAddress()}, MaxInFlight: underWay, CatchUp: true, Check: reason,
	}.Start(t.Context())
	replica := newReplica(t, w, fmt.Sprintf("- {name: replica, mesh: test, virtual_node: shop-1, bind: %s, app: %s, concurrency: 1}\n", spare.Addresses[1], w.Nodes["shop-1"].App))
	progress := func() float64 {
		answered, _ := load.Counts()
		return min(float64(answered)/float64(seconds*rate), float64(c.step)/float64(seconds*changesPerSecond))
	}
	began, failed, restarts := time.Now(), 0, 0
	tick := time.NewTicker(time.Second / changesPerSecond)
	defer tick.Stop()
	for progress() < 1 {
		<-tick.C
		replica.turn(c.step)
		if restarts < 2 && progress() > float64(restarts+1)/3 {
			restarts++
			w.Server.Stop()
			w.StartServer()
		}
		at := time.Now()
		what := c.change()
		if _, now := load.Counts(); now > failed {
			t.Errorf("%s, change %d (%s, %s): %d failed; so far: %v", time.Since(began).Round(time.Millisecond), c.step, what, time.Since(at).Round(time.Millisecond), now-failed, load.Report().Reasons)
			failed = now
		}
	}
	took := time.Since(began)
	time.Sleep(2500 * time.Millisecond) // what was removed last has lingered
	r := load.Stop()
	t.Logf("%s for %d s: %d changes and %d restarts of the server; %d turns of a replica; %s", took.Round(time.Millisecond), seconds, c.step, restarts, replica.turns, r)
	if r.Failed > 0 {
		t.Errorf("%d of %d failed", r.Failed, r.Sent)
	}
}

// behind serves an application that has no proxy.
func behind(t *testing.T, address string, app http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(meshtest.AppPort)))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close(); <-done })
}

// replica is a proxy that the agent is given and that is taken from it again.
type replica struct {
	t           *testing.T
	w           *meshtest.World
	config      string
	base, proxy string
	turns       int
}

func newReplica(t *testing.T, w *meshtest.World, proxy string) *replica {
	t.Helper()
	r := &replica{t: t, w: w, config: filepath.Join(w.Dir, "agent.yaml"), proxy: proxy}
	base, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.base = string(base)
	return r
}

// turn adds or takes away the proxy, each 25 changes.
func (r *replica) turn(step int) {
	r.t.Helper()
	if step%25 != 0 || step == 0 {
		return
	}
	r.turns++
	text := r.base
	if r.turns%2 == 1 {
		text += r.proxy
	}
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(r.w.Agent.PID(), syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
}

// reason is what is wrong with an answer, with what tells who gave it.
func reason(status int, h http.Header, body string) string {
	if status == http.StatusOK {
		return ""
	}
	body, _, _ = strings.Cut(body, ", decision ") // each has an id of its own, and a reason would be one of each
	return fmt.Sprintf("%d %s %s", status, h.Get("X-Signet-Denied"), body)
}
