package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"signet.example/test/alb"
	"signet.example/test/envoytest"
	"signet.example/test/frozen"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

const (
	// balancerHost is where the load balancers call from; the neighbour calls from [parts.ThisHost].
	balancerHost = "10.231.0.129"
	// neighbourInside is where the neighbour's Envoy has its way out.
	neighbourInside = "127.0.0.41"
	// remembered is for how long after a task was told to stop its name leads to it still, in caches.
	remembered = 6 * time.Second
)

// revision is a task that serves: of containers, or as it was before.
type revision interface {
	at() netip.Addr
	end() error
}

func (r *running) at() netip.Addr { return netip.MustParseAddr(addressOf(r.host)) }
func (r *running) end() error     { return r.stopAll(r.atOnce) }

// rolled is a service, of which two tasks run while it is deployed.
type rolled struct {
	name     string
	balancer *alb.Balancer
	now      revision
	started  int
}

// rolling are the services while a load balancer and a neighbour that has not moved call them.
type rolling struct {
	*mesh
	by map[string]*rolled

	mu       sync.Mutex // guards the following
	names    map[string][]netip.Addr
	asked    int
	posts    map[string]int // that came to applications in this process
	deployed []spell
}

// newRolling leads callers of both kinds to the tasks that run.
func (m *mesh) newRolling() *rolling {
	t := m.t
	r := &rolling{mesh: m, by: map[string]*rolled{}, names: map[string][]netip.Addr{}, posts: map[string]int{}}
	if out, err := exec.CommandContext(t.Context(), "ip", "addr", "add", balancerHost+"/24", "dev", "wire").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, name := range services {
		r.by[name] = &rolled{name: name, balancer: alb.NewBalancer(balancerHost, "/up"), started: 1}
		r.lead(r.by[name], m.tasks[i])
	}
	r.startNeighbour()
	return r
}

// lead has callers go to a task, too, and waits until its load balancer has found it healthy.
func (r *rolling) lead(s *rolled, next revision) {
	target := netip.AddrPortFrom(next.at(), meshtest.AppPort).String()
	s.balancer.Register(r.t, target)
	r.mu.Lock()
	r.names[s.name] = append(r.names[s.name], next.at())
	r.mu.Unlock()
	for end := time.Now().Add(time.Minute); !s.balancer.Healthy(target); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Errorf("%s at %s is not healthy at its load balancer", s.name, target)
			return
		}
	}
	s.now = next
}

// deploy starts a task and leads callers to it, as ECS does, then has the one before it stop.
func (r *rolling) deploy(s *rolled, start func() (revision, error)) {
	begun, was := time.Now(), s.now
	next, err := start()
	if err != nil {
		r.t.Errorf("%s: %v", s.name, err)
		return
	}
	r.lead(s, next)
	s.balancer.Deregister(netip.AddrPortFrom(was.at(), meshtest.AppPort).String())
	forgotten := time.AfterFunc(remembered, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.names[s.name] = slices.DeleteFunc(slices.Clone(r.names[s.name]), func(a netip.Addr) bool { return a == was.at() })
	})
	defer forgotten.Stop() // which it has
	if err := was.end(); err != nil {
		r.t.Errorf("%s at %s: %v", s.name, was.at(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deployed = append(r.deployed, spell{begun, time.Now()})
}

// all deploys each service so many times, one a moment after the other.
func (r *rolling) all(times int, start func(*rolled) (revision, error)) {
	var wg sync.WaitGroup
	for i, name := range services {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 2 * time.Second) // a host that starts three tasks at once has no processor left for calls
			for range times {
				r.deploy(r.by[name], func() (revision, error) { return start(r.by[name]) })
			}
		})
	}
	wg.Wait()
}

// converted starts the next task of a service, on the other of its two hosts.
func (r *rolling) converted(s *rolled) (revision, error) {
	i := slices.Index(services, s.name)
	s.started++
	next := r.replica(i, s.started)
	err := next.start()
	if err == nil && len(next.def.Container(r.t, "app").HealthCheck.Command) > 0 {
		err = next.await("app", time.Now(), 100*time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks = append(r.tasks, next)
	return next, err
}

// frozenTask is one as it was: an Envoy as App Mesh left it, and the application, in this process.
type frozenTask struct {
	host int
	cmd  *exec.Cmd
	app  *http.Server
}

func (f *frozenTask) at() netip.Addr { return netip.MustParseAddr(addressOf(f.host)) }
func (f *frozenTask) end() error     { return errors.New("nobody goes on from here") }

// frozen starts the revision from before a definition was converted.
func (r *rolling) frozen(s *rolled) (revision, error) {
	f := &frozenTask{host: 8 + slices.Index(services, s.name)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /up", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/page", page(s.name, func(id string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.posts[id]++
	}))
	var l net.Listener
	var err error
	parts.FromHost(r.t, f.host, func() { l, err = net.Listen("tcp", "127.0.0.1:8080") })
	if err != nil {
		return nil, err
	}
	f.app = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	r.t.Cleanup(func() { _ = f.app.Close() })
	go func() { _ = f.app.Serve(l) }() // ends by Close
	f.cmd = r.startFrozen(f.host, s.name, frozen.Node{Name: s.name, At: addressOf(f.host), Inside: "127.0.0.1"})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // ECS leads nobody to it before
		c, err := net.Dial("tcp", netip.AddrPortFrom(f.at(), meshtest.AppPort).String())
		if err == nil {
			return f, c.Close()
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// startFrozen starts an Envoy of App Mesh on a host.
func (r *rolling) startFrozen(host int, name string, n frozen.Node) *exec.Cmd {
	t := r.t
	text, err := json.Marshal(n.Bootstrap())
	file := filepath.Join(t.TempDir(), name+".json")
	must(t, errors.Join(err, os.WriteFile(file, text, 0o600)))
	words := []string{parts.Envoy(t), "--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c", file}
	if host > 1 {
		words = append(strings.Fields(parts.OnHost(host)), words...)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), words[0], words[1:]...)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // where it has not ended
		_ = cmd.Wait()         // it was killed
	})
	return cmd
}

// startNeighbour has a service on this host that has not moved: its Envoy goes where names lead.
func (r *rolling) startNeighbour() {
	t := r.t
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	// This process and its children are in a mount namespace of their own.
	must(t, errors.Join(os.WriteFile(resolv, []byte("nameserver "+parts.ThisHost+"\n"), 0o600), unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, "")))
	parts.Nameserver(t, netip.MustParseAddrPort(parts.ThisHost+":53"), func(name string, q dnsmessage.Type) (netip.Addr, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		all := r.names[strings.TrimSuffix(name, ".test.internal.")]
		if q != dnsmessage.TypeA || len(all) == 0 {
			return netip.Addr{}, true
		}
		r.asked++
		return all[r.asked%len(all)], true
	})
	backends := map[string]string{}
	for _, name := range services {
		backends[name] = meshtest.HostOf(name)
	}
	r.startFrozen(1, "neighbour", frozen.Node{Name: "neighbour", Inside: neighbourInside, Backends: backends})
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(r.byNeighbour()), DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for _, name := range services {
		var last error
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			a, err := meshtest.Do(t, client, http.MethodGet, "http://"+meshtest.HostOf(name)+":8080/page")
			if err == nil && a.Status == http.StatusOK {
				break
			}
			if last = fmt.Errorf("%d %s: %w", a.Status, a.Body, err); time.Now().After(end) {
				t.Fatalf("the neighbour does not reach %s: %v", name, last)
			}
		}
	}
}

func (r *rolling) byNeighbour() *url.URL {
	return &url.URL{Scheme: "http", Host: neighbourInside + ":15001"}
}

// toTheirs picks a service's load balancer.
type toTheirs map[string]*rolled

func (by toTheirs) RoundTrip(req *http.Request) (*http.Response, error) {
	return by[strings.TrimSuffix(req.URL.Hostname(), ".test.internal")].balancer.RoundTrip(req)
}

// callers are the two loads, each at a rate.
func (r *rolling) callers(rate int, trial string) (all [2]*envoytest.Run) {
	for i, l := range []envoytest.Load{{Transport: toTheirs(r.by)}, {Proxy: r.byNeighbour(), NewConnections: 0.02}} {
		from := []string{"balancer", "neighbour"}[i] + trial
		l.Rate, l.MaxInFlight, l.Check = rate, 128, notOK
		l.Request = func(ctx context.Context, n int) (*http.Request, error) {
			to := "http://" + meshtest.HostOf(services[n%len(services)]) + ":8080/page"
			if n/len(services)%4 == 0 { // a POST, with a body of its own
				return http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(fmt.Sprintf("%s-%d", from, n)))
			}
			return http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
		}
		all[i] = l.Start(r.t.Context())
	}
	return all
}

// bearableCallers starts the loads that this host can bear.
func (r *rolling) bearableCallers() ([2]*envoytest.Run, int) {
	for rate := mostRate; ; rate /= 2 {
		if rate > mostRate/8 {
			l := r.callers(rate, fmt.Sprint("-trial-", rate))
			time.Sleep(time.Second)
			if a, b := l[0].Stop(), l[1].Stop(); max(a.Quantile(0.99), b.Quantile(0.99)) > quick {
				continue
			}
		}
		return r.callers(rate, ""), rate
	}
}

// excused reports whether a failure is one of a host that stood still: then, or during the deployment.
func (r *rolling) excused(f envoytest.Failure, stood []spell) bool {
	during := spell{f.Began, f.Ended}
	return slices.ContainsFunc(stood, during.meets) ||
		slices.ContainsFunc(r.deployed, func(d spell) bool { return d.meets(during) && slices.ContainsFunc(stood, d.meets) })
}

func (s spell) meets(other spell) bool { return s.from.Before(other.to) && other.from.Before(s.to) }

// judge holds the calls from somewhere to what they were to be.
func (r *rolling) judge(from string, report envoytest.Report, stood []spell) {
	r.t.Logf("from %s: %s", from, report)
	for _, f := range report.Failures {
		if !r.excused(f, stood) {
			r.t.Errorf("a call from %s failed that took %s: %s", from, f.Ended.Sub(f.Began).Round(time.Millisecond), f.Why)
		}
	}
	if report.Sent < 60 || report.Skipped > 0 && len(stood) == 0 {
		r.t.Errorf("it was no load from %s", from)
	}
}

// judgePosts holds that no application got a POST twice: each wrote what came.
func (r *rolling) judgePosts() {
	came := r.posts
	for _, task := range r.tasks {
		for line := range strings.Lines(task.output("app")) {
			if _, id, ok := strings.Cut(strings.TrimSpace(line), posted); ok {
				came[id]++
			}
		}
	}
	for id, n := range came {
		if n > 1 {
			r.t.Errorf("the POST %s came %d times", id, n)
		}
	}
	r.t.Logf("%d POSTs came to applications", len(came))
	if len(came) < 20 {
		r.t.Error("POSTs were not counted")
	}
}
