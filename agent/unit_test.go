package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/svids"
	"signet.example/attestation/jointoken"
	"signet.example/attestation/nodes"
	"signet.example/attestation/x509pop"
	"signet.example/internal/watched"
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
	for key, wrong := range map[string]func(*Config){
		"server":                  func(c *Config) { c.Server = "mesh" },
		"trust_domain":            func(c *Config) { c.TrustDomain = "spiffe://a b" },
		"metrics":                 func(c *Config) { c.Metrics = "9464" },
		"data_dir":                func(c *Config) { c.DataDir = "data" },
		"socket_dir":              func(c *Config) { c.SocketDir = "run" },
		"drain_time":              func(c *Config) { c.DrainTime = -time.Second },
		"authz.memory_limit":      func(c *Config) { c.Authz.MemoryLimit = 1 },
		"proxies[0].name":         func(c *Config) { c.Proxies[0].Name = "../x" },
		"proxies[0].mesh":         func(c *Config) { c.Proxies[0].Mesh = "" },
		"proxies[0].virtual_node": func(c *Config) { c.Proxies[0].VirtualNode = "" },
		"proxies[0].bind":         func(c *Config) { c.Proxies[0].Bind = "127.0.0.1" },
		"proxies[0].app":          func(c *Config) { c.Proxies[0].App = "localhost" },
		"proxies[0].egress_port":  func(c *Config) { c.Proxies[0].EgressPort = 70000 },
		"proxies[0].concurrency":  func(c *Config) { c.Proxies[0].Concurrency = -1 },
		"proxies[0].admin":        func(c *Config) { c.Proxies[0].Admin = "/tmp/admin.sock" },
		"proxies[0].egress":       func(c *Config) { c.Proxies[0].Egress = "192.0.2.7:15001" },
		"proxies[0].egress_mode":  func(c *Config) { c.Proxies[0].EgressMode = "0660" },
		"proxies[1].egress": func(c *Config) {
			c.Proxies[0].Egress = "unix:/run/out.sock"
			c.Proxies = append(c.Proxies, Proxy{Name: "b", Mesh: "m", VirtualNode: "n", Bind: "127.0.0.77", Egress: "unix:/run/out.sock"})
		},
		"proxies[1].name": func(c *Config) { c.Proxies = append(c.Proxies, c.Proxies[0]) },
	} {
		c := goodConfig()
		wrong(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestAHostJoinsByATokenOrByEvidenceOfItsOwn(t *testing.T) {
	authority := parts.NewHostCA(t, "hosts")
	certificate, key := authority.Host("web-01")
	own := nodes.HostConfig{X509PoP: x509pop.Host{Certificate: certificate, Key: key}}
	root, other := parts.NewHostCA(t, "root"), parts.NewHostCA(t, "root")
	trust := parts.WriteCerts(t, root.Cert)
	pin := sha256.Sum256(root.Cert.RawSubjectPublicKeyInfo)
	token, err := jointoken.New(pin[:])
	if err != nil {
		t.Fatal(err)
	}
	wide := parts.WriteCerts(t, root.Cert)
	if err := os.Chmod(wide, 0o666); err != nil {
		t.Fatal(err)
	}
	given := tokens{environment: token.Reveal()}
	for name, c := range map[string]struct {
		ways ways
		want string // of the error; "" for none
	}{
		"a token":                            {ways{tokens: given}, ""},
		"a token, and the root that it pins": {ways{tokens: given, trust: trust}, ""},
		"a token of another trust domain":    {ways{tokens: given, trust: parts.WriteCerts(t, other.Cert)}, "another trust domain"},
		"a certificate":                      {ways{own: own, trust: trust}, ""},
		"both":                               {ways{tokens: given, own: own, trust: trust}, "leave one of them out"},
		"neither":                            {ways{trust: trust}, "signet token create"},
		"no such certificate":                {ways{own: nodes.HostConfig{X509PoP: x509pop.Host{Certificate: "/no/such", Key: key}}, trust: trust}, "join.x509pop.certificate: "},
		"no such root":                       {ways{own: own, trust: "/no/such"}, "trust: "},
		"two roots":                          {ways{own: own, trust: parts.WriteCerts(t, root.Cert, other.Cert)}, "trust: "},
		"no authority":                       {ways{own: own, trust: certificate}, "trust: "},
		"no certificate":                     {ways{own: own, trust: key}, "trust: "},
		"a root that others can replace":     {ways{own: own, trust: wide}, "trust: "},
	} {
		how, err := c.ways.read()
		if c.want == "" && (err != nil || !bytes.Equal(how.pin, pin[:]) || how.evidence == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %x, %v", name, how.pin, err)
		}
	}
	for want, change := range map[string]func(*Config){
		"trust:":        func(c *Config) { c.TokenFile, c.Join = "", own },
		"join.x509pop:": func(c *Config) { c.TokenFile, c.Join, c.Trust = "/t", own, trust },
	} {
		c := goodConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want it to begin with %s", err, want)
		}
	}
}

func TestTheTokenComesFromFileInputOrEnvironment(t *testing.T) {
	token, err := jointoken.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token.Reveal()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{"file": {TokenFile: file}, "input": {TokenFile: "-"}, "environment": {}} {
		t.Setenv(tokenEnv, token.Reveal())
		source, err := c.tokens(strings.NewReader(token.Reveal() + "\nmore\n"))
		got, rerr := source.read()
		if err != nil || rerr != nil || got != token || !source.given() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := os.LookupEnv(tokenEnv); ok {
		t.Error("children would inherit the token")
	}
	if _, err := (tokens{stdin: strings.NewReader("")}).read(); !errors.Is(err, ErrNoToken) || !strings.Contains(err.Error(), "signet token create") {
		t.Errorf("without a token: %v", err)
	}
	if _, err := (tokens{file: "-", stdin: strings.NewReader("sgt1.hunter2")}).read(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error of a bad token: %v", err)
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

func TestAnSVIDThatHasEndedIsNotServed(t *testing.T) {
	now := time.Now()
	w := svids.Name{Entry: "entry/web", ID: spiffeid.RequireFromString("spiffe://test.example/web")}
	for left, served := range map[time.Duration]int{time.Minute: 1, -time.Second: 0} {
		s := &svids.SVID{Entry: w.Entry, ID: w.ID, Issued: now.Add(-time.Hour), Leaf: &x509.Certificate{NotAfter: now.Add(left)}}
		if n := len(good(map[string]*svids.SVID{w.Entry: s}, []svids.Name{w})); n != served {
			t.Errorf("%s before its end: %d served", left, n)
		}
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
