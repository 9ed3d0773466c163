package envoy

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/identity"
	"signet.example/proxy"
)

// unbound are the views of proxies that nobody binds.
type unbound struct {
	mu         sync.Mutex
	configured map[string]proxy.Shape // guarded by mu
	times      map[string]int         // how often each was; guarded by mu
}

func (u *unbound) Configure(name string, _ proxy.Ref, shape proxy.Shape) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.configured[name] = shape
	u.times[name]++
}

// begun is how often a proxy has been configured.
func (u *unbound) begun(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.times[name]
}

func (u *unbound) Unconfigure(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.configured, name)
}

func (u *unbound) shape(name string) (proxy.Shape, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, ok := u.configured[name]
	return s, ok
}

func (*unbound) For(context.Context, string, identity.Selectors) (View, error) {
	return nil, errors.New("nobody binds it")
}

func (*unbound) Refused(string) string { return "" }

func (*unbound) Changed() <-chan struct{} { return nil }

// running is a supervisor that runs.
type running struct {
	*Supervisor
	views *unbound
}

func (s *running) change(t *testing.T, c Change) {
	t.Helper()
	if err := s.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// at is a proxy.
func at(name, bind, admin string) Proxy {
	return Proxy{Name: name, Shape: proxy.Shape{Bind: bind}, Admin: admin}
}

// aSupervisor runs proxies whose program never starts: nobody binds them.
func aSupervisor(t *testing.T, first ...Proxy) *running {
	t.Helper()
	return aLoggingSupervisor(t, slog.New(slog.DiscardHandler), first...)
}

func aLoggingSupervisor(t *testing.T, log *slog.Logger, first ...Proxy) *running {
	t.Helper()
	v := &unbound{configured: map[string]proxy.Shape{}, times: map[string]int{}}
	s := &running{New(Config{
		Program: "/bin/true", Views: v, Check: func(Proxy) error { return nil }, Revoked: func(error) bool { return false },
		Changed: func() {}, Metrics: NewMetrics(prometheus.NewRegistry()), Log: log,
	}), v}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, first)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if left := s.Status(); len(left) > 0 {
			t.Errorf("%d proxies are left", len(left))
		}
	})
	return s
}

func (s *running) await(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range 1000 {
		got = nil
		for _, e := range s.envoys() {
			got = append(got, e.proxy.Name+"@"+e.proxy.Shape.Bind)
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%v run, want %v", got, want)
}

func TestTheSupervisorFollowsChangesThatComeFasterThanProxiesEnd(t *testing.T) {
	a, b := at("a", "1", ""), at("b", "2", "")
	s := aSupervisor(t, a, b)
	s.await(t, "a@1", "b@2")
	for range 20 {
		s.change(t, Change{Gone: []string{"a"}, Added: []Proxy{at("c", "1", "")}})
		s.change(t, Change{Gone: []string{"c"}, Added: []Proxy{a}})
	}
	s.await(t, "a@1", "b@2")
	s.change(t, Change{Gone: []string{"a", "b"}, Added: []Proxy{at("a", "3", "")}})
	s.await(t, "a@3")
	if p, ok := s.views.shape("a"); !ok || p.Bind != "3" {
		t.Errorf("the views has %+v", p)
	}
	if _, ok := s.views.shape("b"); ok {
		t.Error("the views still has b")
	}
}

// held is a log whose first writer does not go on before it is let go.
type held struct {
	slog.Handler
	once       sync.Once
	came, goOn chan struct{}
}

func (*held) Enabled(context.Context, slog.Level) bool { return true }
func (h *held) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h *held) Handle(context.Context, slog.Record) error {
	h.once.Do(func() {
		close(h.came)
		<-h.goOn
	})
	return nil
}

func TestAProxyThatIsAddedBackWhileItDrainsWaitsForItsEnd(t *testing.T) {
	log := &held{Handler: slog.DiscardHandler, came: make(chan struct{}), goOn: make(chan struct{})}
	a := at("a", "1", "a.sock")
	s := aLoggingSupervisor(t, slog.New(log), a)
	<-log.came // a runs, and does not end when it is told to
	s.change(t, Change{Gone: []string{"a"}})
	s.change(t, Change{Added: []Proxy{a}})
	s.change(t, Change{Added: []Proxy{at("b", "2", "b.sock")}})
	s.await(t, "a@1", "b@2") // b came later, and waits for nobody
	time.Sleep(20 * time.Millisecond)
	s.await(t, "a@1", "b@2")
	close(log.goOn)
	for tries := 0; s.views.begun("a") < 2; tries++ { // between the two there is a moment without either
		if tries == 1000 {
			t.Fatal("the one that was added back did not begin")
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.await(t, "a@1", "b@2")
	for range 20 { // the one that ended has taken nothing from the other
		if p, ok := s.views.shape("a"); !ok {
			t.Fatalf("the views has %+v", p)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAProxyCanBeReadAsLongAsItIsRun(t *testing.T) {
	reads := make(chan string, 4)
	s := New(Config{
		Program: "/bin/true", Views: &unbound{configured: map[string]proxy.Shape{}, times: map[string]int{}}, Check: func(Proxy) error { return nil }, Revoked: func(error) bool { return false },
		Changed: func() {}, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
		Read: func(ctx context.Context, p Proxy, get func(context.Context, string) (int, []byte, error)) {
			if _, _, err := get(ctx, "/ready"); err == nil {
				t.Error("an Envoy that does not run is ready")
			}
			reads <- p.Name + " at " + p.ReadOnly
			<-ctx.Done()
			reads <- p.Name + " no more"
		},
	})
	read := at("a", "127.0.0.2", t.TempDir()+"/a.sock")
	read.ReadOnly = "127.0.0.1:9901"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, []Proxy{read, at("b", "127.0.0.3", t.TempDir()+"/b.sock")})
	}()
	if got := <-reads; got != "a at 127.0.0.1:9901" {
		t.Errorf("read is %s", got)
	}
	cancel()
	<-done
	select {
	case got := <-reads:
		if got != "a no more" {
			t.Errorf("then %s", got)
		}
	default:
		t.Error("it has ended, and is read")
	}
	if len(reads) > 0 {
		t.Errorf("then %s", <-reads)
	}
}
