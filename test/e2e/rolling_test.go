package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/test/alb"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

const (
	// balancerHost is where the load balancer calls from; the neighbour calls from [parts.ThisHost].
	balancerHost = "10.231.0.129"
	// neighbourInside is where the neighbour's Envoy has its way out.
	neighbourInside = "127.0.0.41"
)

// controlName is of a service that is this process.
const controlName = "control"

var wayOut = &url.URL{Scheme: "http", Host: neighbourInside + ":15001"}

var services = []string{"orders", "catalog", "checkout"}

// remembered is for how long after a task was told to stop names lead to it still, where they are
// kept in a cache: longer than the time that it has for callers at least.
const remembered = 6 * time.Second

// order is that in which a task's containers are told to stop.
type order string

const (
	applicationFirst order = "application first" // that of ECS, where it depends on the Envoy
	envoyFirst       order = "Envoy first"
)

// revision is a running task of a service.
type revision interface {
	address() string
	// stop ends it, in an order, when nobody is led to it any more.
	stop(order) error
}

// rolled is a service of which one task runs at a time, and two while it is deployed.
type rolled struct {
	name     string
	def      parts.TaskDefinition
	balancer *alb.Balancer
	now      revision
	stopping sync.WaitGroup
	started  int
}

// rolling has what three services have in common while they are deployed.
type rolling struct {
	t     *testing.T
	w     *meshtest.World
	aws   *parts.STS
	image image
	hosts chan int // free ones
	begun time.Time
	posts posts
	names names
	by    map[string]*rolled
	calls atomic.Bool // checkout may call orders: who has not moved is not called

	mu       sync.Mutex      // guards the following
	healthy  []time.Duration // from the start of a task to HEALTHY
	own      []int           // MiB of pairs under load
	files    []int
	stalls   []spell // in which the host stood still
	deployed []spell
}

// posts are requests that must not be made twice.
type posts struct {
	mu   sync.Mutex
	came map[string]int
}

func (p *posts) note(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came[id]++
}

// repeated are those that an application got more than once.
func (p *posts) repeated() (all int, repeated []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, n := range p.came {
		if n > 1 {
			repeated = append(repeated, id)
		}
	}
	return len(p.came), repeated
}

// names lead to the tasks that are registered, to one after the other.
type names struct {
	mu  sync.Mutex
	at  map[string][]netip.Addr
	ask int
}

func (n *names) add(name string, at netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[name] = append(n.at[name], at)
}

func (n *names) remove(name string, at netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var left []netip.Addr
	for _, a := range n.at[name] {
		if a != at {
			left = append(left, a)
		}
	}
	n.at[name] = left
}

func (n *names) answer(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ask++; len(n.at[name]) > 0 {
		return n.at[name][n.ask%len(n.at[name])]
	}
	return netip.Addr{}
}

// serve is the application of a service's task, which calls others by a client where there is one.
func (r *rolling) serve(s *rolled, caller func() *http.Client) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /up", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("X-Amzn-Trace-Id") != "" && (req.Header.Get("X-Forwarded-Proto") != "https" || req.Header.Get("X-Forwarded-For") != "203.0.113.7") {
			http.Error(w, fmt.Sprintf("what the load balancer said is lost: %v", req.Header), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, s.name) // the caller went away
	})
	page := func(w http.ResponseWriter, req *http.Request) {
		id, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, "half a request", http.StatusBadRequest)
			return
		}
		r.posts.note(string(id))
		_, _ = io.WriteString(w, s.name) // the caller went away
	}
	mux.HandleFunc("POST /page", page)
	mux.HandleFunc("POST /through", func(w http.ResponseWriter, req *http.Request) { // by the mesh, to orders
		if caller == nil {
			page(w, req)
			return
		}
		out, err := http.NewRequestWithContext(req.Context(), http.MethodPost, "http://"+meshtest.HostOf("orders")+":8080/page", req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		resp, err := caller().Do(out)
		if err != nil {
			http.Error(w, "calling orders: "+err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }() // read to its end
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body) // the caller went away
	})
	return mux
}

// through picks a service's transport.
type through map[string]http.RoundTripper

func (t through) RoundTrip(req *http.Request) (*http.Response, error) {
	return t[strings.TrimSuffix(req.URL.Hostname(), ".test.internal")].RoundTrip(req)
}

// load calls the services in turn, with a POST every fourth time, each with a body of its own.
func (r *rolling) load(from string, l envoytest.Load) *envoytest.Run {
	l.MaxInFlight, l.Check = 128, reason // where the host stands still it is not buried
	l.Request = func(ctx context.Context, n int) (*http.Request, error) {
		name := services[n%len(services)]
		page := "http://" + meshtest.HostOf(name) + ":8080/page"
		switch round := n / len(services); {
		case round%4 == 0 && name == "checkout" && r.calls.Load():
			return http.NewRequestWithContext(ctx, http.MethodPost, strings.Replace(page, "page", "through", 1), strings.NewReader(fmt.Sprintf("%s %d", from, n)))
		case round%4 == 0:
			return http.NewRequestWithContext(ctx, http.MethodPost, page, strings.NewReader(fmt.Sprintf("%s %d", from, n)))
		}
		return http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	}
	return l.Start(r.t.Context())
}

// happened is a line of what a failure may be of.
func (r *rolling) happened(format string, args ...any) {
	r.t.Logf("%7s  %s", time.Since(r.begun).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// deploy starts a task and leads callers to it, as ECS does, then has the one before it stop.
func (r *rolling) deploy(s *rolled, start func(*rolled) revision, o order) {
	s.started++
	begun := time.Now()
	next := start(s)
	at := netip.MustParseAddr(next.address())
	target := netip.AddrPortFrom(at, meshtest.AppPort).String()
	s.balancer.Register(r.t, target)
	r.names.add(s.name, at)
	r.w.Await(s.name+" is healthy at its load balancer", time.Minute, func() error {
		if !s.balancer.Healthy(target) {
			return fmt.Errorf("%s is not", target)
		}
		return nil
	})
	s.stopping.Wait()
	was := s.now
	s.now = next
	r.happened("%s: %s serves", s.name, target)
	if was == nil {
		return
	}
	s.stopping.Go(func() {
		gone := netip.MustParseAddr(was.address())
		r.happened("%s: %s is told to stop, %s", s.name, gone, o)
		s.balancer.Deregister(netip.AddrPortFrom(gone, meshtest.AppPort).String())
		forgotten := time.AfterFunc(remembered, func() { r.names.remove(s.name, gone) })
		defer forgotten.Stop() // which it has
		if err := was.stop(o); err != nil {
			r.t.Errorf("%s at %s, %s: %v", s.name, gone, o, err)
		}
		r.mu.Lock()
		r.deployed = append(r.deployed, spell{begun, time.Now()})
		r.mu.Unlock()
		r.happened("%s: %s has stopped", s.name, gone)
	})
}

// apart is between the deployments of one service and of the next: a host that starts three tasks
// at once has no processor left for calls.
const apart = 3 * time.Second

// all does something for each service at a time, and ends when what was told to stop has.
func (r *rolling) all(apart time.Duration, do func(*rolled)) {
	r.t.Helper()
	var wg sync.WaitGroup
	for i, name := range services {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * apart)
			do(r.by[name])
			r.by[name].stopping.Wait()
		})
	}
	wg.Wait()
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// there has a service go there, from deployment to deployment, and back.
func (r *rolling) there(s *rolled, deployments int) {
	for i := range deployments - 1 {
		r.deploy(s, r.converted, []order{applicationFirst, envoyFirst}[i%2])
		if s.name == "orders" {
			r.calls.Store(true)
		}
		r.measure(s.now)
	}
	if s.name == "orders" {
		r.calls.Store(false)
	}
	r.deploy(s, r.frozen, applicationFirst)
}

// loads are calls from the load balancer and from the neighbour, so many a second of each.
type loads struct {
	rate                int
	balancer, neighbour *envoytest.Run
}

func (r *rolling) loads(rate int, trial string) loads {
	balancers := through{}
	for name, s := range r.by {
		balancers[name] = s.balancer
	}
	return loads{
		rate,
		r.load("balancer "+trial, envoytest.Load{Rate: rate, Transport: balancers}),
		r.load("neighbour "+trial, envoytest.Load{Rate: rate, Proxy: wayOut, NewConnections: 0.02}),
	}
}

func (l loads) stop() (balancer, neighbour envoytest.Report) {
	return l.balancer.Stop(), l.neighbour.Stop()
}

const (
	// mostRate is of each of two callers. At 250 two processors start tasks beside the calls for so long that no
	// deployment is judged; at 125 all 21 were.
	mostRate = 125
	// quick is within what a host answers 99 of 100 calls through App Mesh's Envoys that has processors
	// for so many. Where others have them, the half is tried, and so on: an authorizer that gets no
	// processor for half a second is not the matter here.
	quick = 25 * time.Millisecond
)

// bearable starts the loads that this host can bear.
func (r *rolling) bearable() loads {
	for rate := mostRate; ; rate /= 2 {
		if rate > mostRate/8 {
			l := r.loads(rate, fmt.Sprintf("in a trial of %d", rate))
			time.Sleep(2 * time.Second)
			if balancer, neighbour := l.stop(); max(balancer.Quantile(0.99), neighbour.Quantile(0.99)) > quick {
				continue
			}
		}
		r.happened("%d calls/s from each", rate)
		return r.loads(rate, "")
	}
}

// spell is from one moment to another.
type spell struct{ from, to time.Time }

func (s spell) meets(other spell) bool { return s.from.Before(other.to) && other.from.Before(s.to) }

const (
	// still is how long a call through App Mesh's Envoy alone, to this process, takes where the host
	// gave somebody no processor: no proxy of ours has to do with it.
	still = 50 * time.Millisecond
	// after is for how long calls fail of that.
	after = 2 * time.Second
)

// control calls that way again and again, and notes when the host stood still.
func (r *rolling) control() {
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(wayOut)}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for ; r.t.Context().Err() == nil; time.Sleep(still / 2) {
		begun := time.Now()
		resp, err := client.Get("http://" + meshtest.HostOf(controlName) + ":8080/")
		if err == nil {
			_ = resp.Body.Close() // that it came is all
		}
		if ended := time.Now(); err != nil || ended.Sub(begun) > still {
			r.mu.Lock()
			r.stalls = append(r.stalls, spell{begun.Add(-after), ended.Add(after)})
			r.mu.Unlock()
		}
	}
}

// stalled reports whether the host stood still in a spell.
func (r *rolling) stalled(s spell) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.stalls, s.meets)
}

// judge holds calls to what they were to be: none fails, but in a deployment during which the host stood still.
func (r *rolling) judge(from string, report envoytest.Report) {
	r.t.Logf("from %s: %s", from, report)
	for _, f := range report.Failures {
		during := spell{f.Began, f.Ended}
		if !r.stalled(during) && !slices.ContainsFunc(r.deployed, func(d spell) bool { return d.meets(during) && r.stalled(d) }) {
			r.t.Errorf("a call from %s failed after %s: %s", from, f.Began.Sub(r.begun).Round(time.Millisecond), f.Why)
		}
	}
	if report.Skipped > 0 && len(r.stalls) == 0 {
		r.t.Errorf("%d calls from %s could not be sent", report.Skipped, from)
	}
}

// Three services go from App Mesh's Envoy to the tasks that `signet ecs convert` makes of their
// definitions, are deployed again and again, and go back, while a load balancer and a neighbour
// that has not moved call them: nobody's call fails, and nobody's POST is made twice.
func TestRollingDeploymentsFailNoCallAndRepeatNoPOST(t *testing.T) {
	if !parts.SeveralHosts(t, t.Name(), 10) {
		return
	}
	r := newRolling(t)
	r.all(0, func(s *rolled) { r.deploy(s, r.frozen, applicationFirst) })
	for _, name := range services {
		r.w.Await("the neighbour reaches "+name, 20*time.Second, func() error {
			a, err := meshtest.Do(t, &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(wayOut), DisableKeepAlives: true}}, http.MethodGet, "http://"+meshtest.HostOf(name)+":8080/up")
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return err
		})
	}
	load := r.bearable()
	go r.control()
	deployments := meshtest.Soak(7, 67) // of each
	r.all(apart, func(s *rolled) { r.there(s, deployments) })

	time.Sleep(time.Second)
	balancer, neighbour := load.stop()
	r.judge("the load balancer", balancer)
	r.judge("the neighbour", neighbour)
	quiet := slices.DeleteFunc(slices.Clone(r.deployed), r.stalled)
	all, repeated := r.posts.repeated()
	t.Logf("%d deployments at %d calls/s from each; the host stood still in %d of them; %d POSTs", len(r.deployed), load.rate, len(r.deployed)-len(quiet), all)
	if len(repeated) > 0 || all < 100 {
		t.Errorf("%d of %d POSTs came more than once: %.200v", len(repeated), all, repeated)
	}
	r.report()
}

// newRolling starts the mesh, of which the definitions are converted.
func newRolling(t *testing.T) *rolling {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", "addr", "add", balancerHost+"/24", "dev", "wire").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := &rolling{
		t: t, begun: time.Now(), aws: parts.NewSTS(t, "123456789012"), hosts: make(chan int, 9), by: map[string]*rolled{},
		posts: posts{came: map[string]int{}}, names: names{at: map[string][]netip.Addr{}},
	}
	for n := 2; n <= 10; n++ {
		parts.Relay(t, n, strings.TrimPrefix(r.aws.URL(), "http://"))
		r.hosts <- n
	}
	manifests, roles := meshtest.Mesh(), []string{}
	for _, name := range services {
		backends := map[string][]string{"checkout": {"orders"}}[name]
		manifests = meshtest.Join(manifests, meshtest.VirtualNode(name, "", backends...), meshtest.ServiceOfNode(name, name), fmt.Sprintf(
			"apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: %s}\nspec: {listeners: [{port: 8080, ingress: [{name: alb, ranges: [%s/32], healthCheckPath: /up}, {name: unmoved, ranges: [%s/32]}]}]}\n",
			name, balancerHost, parts.ThisHost))
		roles = append(roles, `"`+r.aws.ARN(name+"-task")+`"`)
	}
	r.w = meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", NoAgent: true, Manifests: manifests, Lifetime: time.Hour, // as by default
		ServerExtra: "join: {aws_task: {accounts: [{account: \"123456789012\", issuer: " + r.aws.Issuer() + ", roles: [" + strings.Join(roles, ", ") + "]}]}}\n",
	})
	r.image = image{r.w.Place(r.w.Program(), "signet-task"), r.w.PlaceEnvoy()}
	for name, def := range map[string]parts.TaskDefinition{ // two as the platform redirects, one without
		"orders": r.convert("orders.json"), "catalog": r.convert("catalog.json", "--way-out", "http_proxy"), "checkout": r.convert("checkout.yaml"),
	} {
		if def.ProxyConfiguration.Redirects() != (name != "catalog") {
			t.Fatalf("the platform of %s is told to redirect %+v", name, def.ProxyConfiguration)
		}
		r.by[name] = &rolled{name: name, def: def, balancer: alb.NewBalancer(balancerHost, "/up")}
	}
	r.startNeighbour()
	return r
}
