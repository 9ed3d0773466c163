package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"signet.example/internal/watched"
)

func TestAReloadRefusesWhatNeedsARestartAndNamesIt(t *testing.T) {
	old := goodConfig().withDefaults()
	for key, change := range map[string]func(*Config){
		"server":       func(c *Config) { c.Server = "127.0.0.1:1" },
		"trust_domain": func(c *Config) { c.TrustDomain = "other.example" },
		"data_dir":     func(c *Config) { c.DataDir = "/elsewhere" },
		"socket_dir":   func(c *Config) { c.SocketDir = "/elsewhere" },
		"metrics":      func(c *Config) { c.Metrics = "127.0.0.1:1" },
		"envoy":        func(c *Config) { c.Envoy = "/elsewhere" },
		"drain_time":   func(c *Config) { c.DrainTime = time.Minute },
		"authz":        func(c *Config) { c.Authz.MemoryLimit = 64 },
	} {
		next := goodConfig().withDefaults()
		change(&next)
		if got := fixedKeys(old, next); !slices.Equal(got, []string{key}) {
			t.Errorf("%s: %v", key, got)
		}
	}
	next := goodConfig().withDefaults()
	next.LogLevel, next.TokenFile, next.Proxies, next.Executable = "debug", "/elsewhere", nil, "/elsewhere"
	if got := fixedKeys(old, next); len(got) > 0 {
		t.Errorf("%v are refused", got)
	}
}

func TestAReloadEndsAndStartsOnlyTheProxiesThatDiffer(t *testing.T) {
	a := Proxy{Name: "a", Bind: "127.0.0.2"}
	b, c := Proxy{Name: "b", Bind: "127.0.0.3"}, Proxy{Name: "c", Bind: "127.0.0.4"}
	moved := b
	moved.Bind = "127.0.0.5"
	got := changeOf([]Proxy{a, b}, []Proxy{a, moved, c})
	if !slices.Equal(got.gone, []string{"b"}) || len(got.added) != 2 || got.added[0] != moved || got.added[1] != c {
		t.Errorf("%+v", got)
	}
	if got := changeOf([]Proxy{a, b}, []Proxy{b, a}); len(got.gone)+len(got.added) > 0 {
		t.Errorf("another order: %+v", got)
	}
}

// aSupervisor runs proxies whose program never starts: nobody binds them.
func aSupervisor(t *testing.T, first ...Proxy) *supervisor {
	t.Helper()
	return aLoggingSupervisor(t, slog.New(slog.DiscardHandler), first...)
}

func aLoggingSupervisor(t *testing.T, log *slog.Logger, first ...Proxy) *supervisor {
	t.Helper()
	m := newMetrics()
	u := &upstream{}
	r := newRelay(Config{}, u, nil, "", "", m, log)
	s := newSupervisor(func(p Proxy) *envoy {
		return newEnvoy(Config{Envoy: "/bin/true"}, p, "", r, nil, &watched.Value[int]{}, m, log)
	}, r, m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, first)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if left := s.envoys(); len(left) > 0 {
			t.Errorf("%d proxies are left", len(left))
		}
	})
	return s
}

func (s *supervisor) await(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range 1000 {
		got = nil
		for _, e := range s.envoys() {
			got = append(got, e.proxy.Name+"@"+e.proxy.Bind)
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
	a, b := Proxy{Name: "a", Bind: "1"}, Proxy{Name: "b", Bind: "2"}
	s := aSupervisor(t, a, b)
	s.await(t, "a@1", "b@2")
	for range 20 {
		s.changes <- change{gone: []string{"a"}, added: []Proxy{{Name: "c", Bind: "1"}}}
		s.changes <- change{gone: []string{"c"}, added: []Proxy{a}}
	}
	s.await(t, "a@1", "b@2")
	s.changes <- change{gone: []string{"a", "b"}, added: []Proxy{{Name: "a", Bind: "3"}}}
	s.await(t, "a@3")
	if p, ok := s.relay.configured("a"); !ok || p.Bind != "3" {
		t.Errorf("the relay has %+v", p)
	}
	if _, ok := s.relay.configured("b"); ok {
		t.Error("the relay still has b")
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
	a := Proxy{Name: "a", Bind: "1", Admin: "a.sock"}
	s := aLoggingSupervisor(t, slog.New(log), a)
	<-log.came // a runs, and does not end when it is told to
	s.changes <- change{gone: []string{"a"}}
	s.changes <- change{added: []Proxy{a}}
	s.changes <- change{added: []Proxy{{Name: "b", Bind: "2", Admin: "b.sock"}}}
	s.await(t, "a@1", "b@2") // b came later, and waits for nobody
	time.Sleep(20 * time.Millisecond)
	s.await(t, "a@1", "b@2")
	close(log.goOn)
	s.await(t, "a@1", "b@2")
	for range 20 { // the one that ended has taken nothing from the other
		if p, ok := s.relay.configured("a"); !ok {
			t.Fatalf("the relay has %+v", p)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAReloadThatIsRefusedChangesNothing(t *testing.T) {
	cfg := goodConfig()
	cfg.Envoy = "/bin/true"
	s := aSupervisor(t, cfg.Proxies...)
	held, err := cfg.withDefaults().withUsers()
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: held, supervisor: s, log: slog.New(slog.DiscardHandler)}
	for want, change := range map[string]func(*Config){
		"metrics cannot be changed by a reload": func(c *Config) { c.Metrics, c.Proxies = "127.0.0.1:0", nil },
		"proxies[0].bind: this host does not": func(c *Config) {
			c.Proxies = []Proxy{{Name: "x", Mesh: "m", VirtualNode: "n", User: strconv.Itoa(os.Getuid()), Bind: "192.0.2.1"}}
		},
		`proxies[0].user: user "no-such" is`: func(c *Config) {
			c.ProxyUser, c.Proxies = "no-such", []Proxy{{Name: "x", Mesh: "m", VirtualNode: "n", Bind: "127.0.0.9"}}
		},
		"proxies[0].mesh: is missing": func(c *Config) { c.Proxies = []Proxy{{Name: "x", VirtualNode: "n", Bind: "127.0.0.9"}} },
	} {
		next := cfg
		change(&next)
		if err := a.reload(t.Context(), next); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	s.await(t, "web@127.0.0.2")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.reload(ended, cfg); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
