package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/attestation/nodes"
	"signet.example/attestation/x509pop"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/test/parts"
)

func goodConfig() Config {
	return Config{Server: "127.0.0.1:8443", Proxies: []Proxy{{Name: "web", Mesh: "shop", VirtualNode: "web", Bind: "127.0.0.2", User: strconv.Itoa(os.Getuid())}}}
}

func TestAConfigurationWithDefaultsIsValid(t *testing.T) {
	if err := goodConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{Server: "mesh:8443"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestAWrongConfigurationNamesTheKey(t *testing.T) {
	own := nodes.HostConfig{X509PoP: x509pop.Host{Certificate: "/host.pem", Key: "/host.key"}}
	for key, wrong := range map[string]func(*Config){
		"server":                     func(c *Config) { c.Server = "mesh" },
		"trust_domain":               func(c *Config) { c.TrustDomain = "spiffe://a b" },
		"metrics":                    func(c *Config) { c.Metrics = "9464" },
		"data_dir":                   func(c *Config) { c.DataDir = "data" },
		"socket_dir":                 func(c *Config) { c.SocketDir = "run" },
		"drain_time":                 func(c *Config) { c.DrainTime = -time.Second },
		"authz.memory_limit":         func(c *Config) { c.Authz.MemoryLimit = 1 },
		"proxies[0].admin_read_only": func(c *Config) { c.Proxies[0].AdminReadOnly = "0.0.0.0:9901" },
		"proxies[1].admin_read_only": func(c *Config) {
			c.Proxies[0].AdminReadOnly = "127.0.0.1:9901"
			c.Proxies = append(c.Proxies, c.Proxies[0])
			c.Proxies[1].Name, c.Proxies[1].Bind = "web2", "127.0.0.3"
		},
		"proxies[0].name":            func(c *Config) { c.Proxies[0].Name = "../x" },
		"proxies[0].mesh":            func(c *Config) { c.Proxies[0].Mesh = "" },
		"proxies[0].virtual_node":    func(c *Config) { c.Proxies[0].VirtualNode = "" },
		"proxies[0].virtual_gateway": func(c *Config) { c.Proxies[0].VirtualGateway = "edge" },
		"proxies[0].bind":            func(c *Config) { c.Proxies[0].Bind = "127.0.0.1" },
		"proxies[0].app":             func(c *Config) { c.Proxies[0].App = "localhost" },
		"proxies[0].egress_port":     func(c *Config) { c.Proxies[0].EgressPort = 70000 },
		"proxies[0].concurrency":     func(c *Config) { c.Proxies[0].Concurrency = -1 },
		"proxies[0].admin":           func(c *Config) { c.Proxies[0].Admin = "/tmp/admin.sock" },
		"proxies[0].egress":          func(c *Config) { c.Proxies[0].Egress = "192.0.2.7:15001" },
		"proxies[0].egress_mode":     func(c *Config) { c.Proxies[0].EgressMode = "0660" },
		"proxies[1].egress": func(c *Config) {
			c.Proxies[0].Egress = "unix:/run/out.sock"
			c.Proxies = append(c.Proxies, Proxy{Name: "b", Mesh: "m", VirtualNode: "n", Bind: "127.0.0.77", Egress: "unix:/run/out.sock"})
		},
		"proxies[1].egress_port": func(c *Config) {
			c.Proxies = append(c.Proxies, Proxy{Name: "b", Mesh: "m", VirtualGateway: "edge", Bind: "127.0.0.77", EgressPort: 15001})
		},
		"proxies[1].app": func(c *Config) {
			c.Proxies = append(c.Proxies, Proxy{Name: "b", Mesh: "m", VirtualGateway: "edge", Bind: "127.0.0.77", App: "127.0.0.1"})
		},
		"proxies[2].bind": func(c *Config) {
			edge := Proxy{Name: "b", Mesh: "m", VirtualGateway: "edge", Bind: "127.0.0.77"}
			c.Proxies = append(c.Proxies, edge, edge)
			c.Proxies[2].Name = "c"
		},
		"trust":           func(c *Config) { c.TokenFile, c.Join = "", own },
		"join.x509pop":    func(c *Config) { c.TokenFile, c.Join, c.Trust = "/t", own, "/trust.pem" },
		"proxies[1].name": func(c *Config) { c.Proxies = append(c.Proxies, c.Proxies[0]) },
	} {
		c := goodConfig()
		wrong(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestGatewaysOfOneHostNeedAnAddressEachAndNothingOfAnApplication(t *testing.T) {
	c := goodConfig()
	for name, bind := range map[string]string{"edge-1": "127.0.0.1", "edge-2": "192.0.2.7", "edge-3": "192.0.2.8"} {
		c.Proxies = append(c.Proxies, Proxy{Name: name, Mesh: "m", VirtualGateway: "edge", Bind: bind})
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	last := proxiesOf(c.withDefaults().Proxies, proxy.Shape{})[3]
	if !last.Ref.Gateway() || !last.Shape.Alone || last.Shape.App != "" {
		t.Errorf("it is run as %+v", last)
	}
}

func TestTheSocketsAreOnlyPutWhereNobodyElseCanReplaceThem(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(parent, dir string) error
		root  bool // only root can
		want  string
	}{
		"nothing":                     {func(string, string) error { return nil }, false, ""},
		"for everyone to write":       {func(_, dir string) error { return os.Chmod(dir, 0o1777) }, false, "chmod go-w"},
		"in one that everyone writes": {func(parent, _ string) error { return os.Chmod(parent, 0o777) }, false, "chmod go-w"},
		"for a group to write": {func(_, dir string) error {
			return errors.Join(os.Chown(dir, -1, 60000), os.Chmod(dir, 0o775))
		}, true, "chmod g-w"},
		"of another user":          {func(_, dir string) error { return os.Chown(dir, 60000, -1) }, true, "belongs to uid 60000"},
		"a file in a socket's way": {func(_, dir string) error { return os.WriteFile(filepath.Join(dir, "xds.sock"), []byte("mine"), 0o600) }, false, "is not a socket"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				parts.Missing(t, "giving files away needs root")
			}
			parent, err := os.MkdirTemp("", "sa")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(parent) }()
			dir := filepath.Join(parent, "run")
			if err := errors.Join(os.Mkdir(dir, 0o700), c.spoil(parent, dir)); err != nil {
				t.Fatal(err)
			}
			s, err := listen(t.Context(), Config{SocketDir: dir})
			if err == nil {
				s.close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("want %q: %v", c.want, err)
			}
			if kept, err := os.ReadFile(filepath.Join(dir, "xds.sock")); strings.HasPrefix(name, "a file") && string(kept) != "mine" {
				t.Errorf("the file is gone: %q, %v", kept, err)
			}
		})
	}
}

func TestWatchedWakesAllWaitersWithTheNewest(t *testing.T) {
	var w watched.Value[int]
	got := make(chan int, 2)
	for range 2 {
		go func() {
			v, err := w.Wait(context.Background(), func(v int) bool { return v >= 3 })
			if err != nil {
				t.Error(err)
			}
			got <- v
		}()
	}
	for i := range 4 {
		w.Set(i)
	}
	for range 2 {
		if v := <-got; v != 3 {
			t.Errorf("got %d", v)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Wait(ctx, func(int) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
