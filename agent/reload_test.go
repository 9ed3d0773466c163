package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/agent/envoy"
	"signet.example/agent/relay"
	"signet.example/agent/resources"
	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
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
	gone, added := changeOf([]Proxy{a, b}, []Proxy{a, moved, c})
	if !slices.Equal(gone, []string{"b"}) || len(added) != 2 || !reflect.DeepEqual(added[0], moved) || !reflect.DeepEqual(added[1], c) {
		t.Errorf("%v, %+v", gone, added)
	}
	if gone, added := changeOf([]Proxy{a, b}, []Proxy{b, a}); len(gone)+len(added) > 0 {
		t.Errorf("another order: %v, %+v", gone, added)
	}
}

// aSupervisor runs proxies whose program never starts: nobody binds them.
func aSupervisor(t *testing.T, first ...Proxy) *envoy.Supervisor {
	t.Helper()
	m, log := newMetrics(), slog.New(slog.DiscardHandler)
	s := envoy.New(envoy.Config{
		Program: "/bin/true", Views: views{relay.New(relay.Config{State: &watched.Value[*resources.Snapshot]{}})}, Check: checkProxy, Revoked: api.Banned,
		Changed: func() {}, Metrics: m.envoys, Log: log,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, proxiesOf(first, proxy.Shape{}))
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

func TestAReloadThatIsRefusedChangesNothing(t *testing.T) {
	cfg := goodConfig()
	cfg.Envoy = "/bin/true"
	s := aSupervisor(t, cfg.Proxies...)
	held, err := cfg.withDefaults().withUsers()
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: held, supervisor: s, relay: relay.New(relay.Config{}), log: slog.New(slog.DiscardHandler)}
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
	if all := s.Status(); len(all) != 1 || all[0].Proxy.Name != "web" || all[0].Proxy.Shape.Bind != "127.0.0.2" {
		t.Errorf("%+v run", all)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.reload(ended, cfg); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
