package agent_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/agent"
	"signet.example/test/parts"
)

// aHost is a folder with the configuration of an agent in it, which is started
// more than once.
type aHost struct {
	t   *testing.T
	cfg agent.Config
	log logBuffer
}

func newHost(t *testing.T, f *fakeServer) *aHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "sa") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &aHost{t: t, cfg: agent.Config{
		Server: f.addr, DataDir: filepath.Join(dir, "data"), SocketDir: filepath.Join(dir, "s"), Metrics: "127.0.0.1:0",
	}}
}

func (h *aHost) file(name string) string { return filepath.Join(h.cfg.DataDir, name) }

func (h *aHost) read(name string) []byte {
	h.t.Helper()
	b, err := os.ReadFile(h.file(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *aHost) write(name string, content []byte) {
	h.t.Helper()
	if err := os.WriteFile(h.file(name), content, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// token gives the agent a token that the server made, by file.
func (h *aHost) token(text string) {
	h.t.Helper()
	h.cfg.TokenFile = filepath.Join(filepath.Dir(h.cfg.DataDir), "token")
	if err := os.WriteFile(h.cfg.TokenFile, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// run starts an agent and stops it when it is ready. It returns why it ended
// before, if it did.
func (h *aHost) run() error {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx, h.cfg, slog.New(slog.NewTextHandler(&h.log, nil))) }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(5 * time.Millisecond):
		}
		if _, err := os.Stat(filepath.Join(h.cfg.SocketDir, "addresses.json")); err == nil {
			cancel()
			return <-done
		}
	}
}

// joined is a host that has joined, and forgot its token.
func joined(t *testing.T, f *fakeServer) *aHost {
	t.Helper()
	h := newHost(t, f)
	h.token(f.token())
	if err := h.run(); err != nil {
		t.Fatal(err)
	}
	h.cfg.TokenFile = ""
	return h
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error lacks %q:\n%v", p, err)
		}
	}
}

func TestAHostThatJoinedComesBackByItsKeyWithoutAToken(t *testing.T) {
	f := newFakeServer(t)
	h := joined(t, f)
	key := h.read("host.key")
	for range 2 {
		if err := h.run(); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attests != 3 || len(f.hosts) != 1 || !bytes.Equal(key, h.read("host.key")) {
		t.Errorf("%d times attested, by %d keys", f.attests, len(f.hosts))
	}
}

func TestTheHostKeyIsPlainPKCS8ForItsUserAlone(t *testing.T) {
	h := joined(t, newFakeServer(t))
	block, rest := pem.Decode(h.read("host.key"))
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 {
		t.Fatalf("not one PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if _, ok := key.(*ecdsa.PrivateKey); err != nil || !ok {
		t.Errorf("%T, %v", key, err)
	}
	for name, want := range map[string]os.FileMode{".": 0o700, "host.key": 0o600, "agent.json": 0o600} {
		if info, err := os.Stat(h.file(name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if strings.Contains(h.log.String(), "PRIVATE") {
		t.Error("the log has the key")
	}
}

// The power may go between the server's answer and our next write: the key is
// enrolled, the token spent, and agent.json as it was before the join.
func TestAnAgentThatEndedWhileItJoinedComesBack(t *testing.T) {
	f := newFakeServer(t)
	for _, name := range []string{"without a token", "with the spent token", "without agent.json, with the spent token"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, f)
			spent := f.token()
			h.token(spent)
			if err := h.run(); err != nil {
				t.Fatal(err)
			}
			var kept map[string]any
			if err := json.Unmarshal(h.read("agent.json"), &kept); err != nil {
				t.Fatal(err)
			}
			delete(kept, "agent_id")
			delete(kept, "root_set")
			before, err := json.Marshal(kept)
			if err != nil {
				t.Fatal(err)
			}
			h.write("agent.json", before)
			if name == "without a token" {
				h.cfg.TokenFile = ""
			}
			if strings.HasPrefix(name, "without agent.json") {
				if err := os.Remove(h.file("agent.json")); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.run(); err != nil {
				t.Error(err)
			}
			if !bytes.Contains(h.read("agent.json"), []byte(`"agent_id": "one"`)) {
				t.Error("it did not write down who it is")
			}
		})
	}
}

// One refusal is one call: a server warns of each.
func TestAHostWhoseJoinWasRefusedAsksOnceAtItsNextStart(t *testing.T) {
	f := newFakeServer(t)
	h := newHost(t, f)
	unknown := f.token()
	f.mu.Lock()
	clear(f.tokens)
	f.mu.Unlock()
	h.token(unknown)
	for n := range 3 {
		wantError(t, h.run(), "PermissionDenied")
		f.mu.Lock()
		if f.attests != n+1 {
			t.Errorf("%d starts, %d times attested", n+1, f.attests)
		}
		f.mu.Unlock()
	}
	h.token(f.token())
	if err := h.run(); err != nil {
		t.Fatal(err)
	}
	if b := h.read("agent.json"); bytes.Contains(b, []byte("refused")) {
		t.Errorf("it joined, and has kept %s", b)
	}
	h.cfg.TokenFile = ""
	if err := h.run(); err != nil {
		t.Errorf("by its key: %v", err)
	}
}

func TestATokenBesideAStandingIsNotSpent(t *testing.T) {
	f := newFakeServer(t)
	h := joined(t, f)
	h.token(f.token())
	if err := h.run(); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	left := len(f.tokens)
	f.mu.Unlock()
	if left != 1 || !strings.Contains(h.log.String(), "the token was not used and stays good") {
		t.Errorf("%d tokens are left; the log:\n%s", left, h.log.String())
	}
	h.cfg.TokenFile = "/nowhere" // it may be gone, too
	if err := h.run(); err != nil {
		t.Error(err)
	}
}

func TestAHostThatWasForgottenJoinsAgainOnlyWithAToken(t *testing.T) {
	f := newFakeServer(t)
	h := joined(t, f)
	f.change(func(f *fakeServer) { clear(f.hosts) })
	wantError(t, h.run(), "signet token create")
	h.token(f.token())
	if err := h.run(); err != nil {
		t.Error(err)
	}
	h.token(newFakeServer(t).token())
	f.change(func(f *fakeServer) { clear(f.hosts) })
	wantError(t, h.run(), "another trust domain", h.cfg.DataDir, "move that away")
}

// What is there and is not ours, or not whole, is never made anew.
func TestADataDirThatIsNotWholeIsRefusedAndLeftAsItIs(t *testing.T) {
	f := newFakeServer(t)
	other := joined(t, f)
	for name, c := range map[string]struct {
		spoil func(h *aHost)
		want  string
	}{
		"no key":             {func(h *aHost) { _ = os.Remove(h.file("host.key")) }, "host.key: it is missing"},
		"an empty key":       {func(h *aHost) { h.write("host.key", nil) }, "one PEM block"},
		"half a key":         {func(h *aHost) { k := h.read("host.key"); h.write("host.key", k[:len(k)/2]) }, "one PEM block"},
		"another host's key": {func(h *aHost) { h.write("host.key", other.read("host.key")) }, "another host key"},
		"an empty standing":  {func(h *aHost) { h.write("agent.json", nil) }, "agent.json:"},
		"a foreign standing": {func(h *aHost) { h.write("agent.json", other.read("agent.json")) }, "another host key"},
		"a forged root set": {func(h *aHost) {
			h.write("agent.json", bytes.Replace(h.read("agent.json"), []byte("root_set\": \""), []byte("root_set\": \"x"), 1))
		}, "root set"},
		"a later version": {func(h *aHost) {
			h.write("agent.json", bytes.Replace(h.read("agent.json"), []byte("\"version\": 1"), []byte("\"version\": 2"), 1))
		}, "version 2"},
		"a key others read":   {func(h *aHost) { _ = os.Chmod(h.file("host.key"), 0o644) }, "chmod"},
		"a folder others use": {func(h *aHost) { _ = os.Chmod(h.cfg.DataDir, 0o777) }, "chmod"},
		"a file too long":     {func(h *aHost) { h.write("agent.json", make([]byte, 2<<20)) }, "longer than"},
		"a pipe for a key":    {func(h *aHost) { _ = os.Remove(h.file("host.key")); mkfifo(t, h.file("host.key")) }, "not a file"},
		"a folder for a key":  {func(h *aHost) { _ = os.Remove(h.file("host.key")); _ = os.Mkdir(h.file("host.key"), 0o700) }, "not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			h := joined(t, f)
			c.spoil(h)
			h.token(f.token())
			f.mu.Lock()
			before := f.attests
			f.mu.Unlock()
			err := h.run()
			wantError(t, err, c.want)
			if !strings.Contains(c.want, "chmod") {
				wantError(t, err, "move "+h.cfg.DataDir+" away")
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.attests != before {
				t.Error("a server was asked")
			}
		})
	}
}

// Trust on first use would be enough for whoever sits on the path at a restart.
func TestAServerThatTheKeptRootsDoNotVouchForIsRefusedAtARestart(t *testing.T) {
	f, impostor := newFakeServer(t), newFakeServer(t)
	h := joined(t, f)
	h.cfg.Server = impostor.addr
	wantError(t, h.run(), "the server's answer is not usable")
	impostor.mu.Lock()
	defer impostor.mu.Unlock()
	if impostor.attests != 0 {
		t.Error("the impostor was asked")
	}
}

func TestAStartThatFailsOnItsOwnHostDoesNotSpendTheToken(t *testing.T) {
	f := newFakeServer(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	proxy := agent.Proxy{Name: "web", Mesh: "shop", VirtualNode: "web", Bind: "192.0.2.1", User: strconv.Itoa(os.Getuid())}
	for key, spoil := range map[string]func(*aHost){
		"metrics: ":    func(h *aHost) { h.cfg.Metrics = taken.Addr().String() },
		"data_dir: ":   func(h *aHost) { h.write("../data", nil) },
		"socket_dir: ": func(h *aHost) { h.write("../s", nil) },
		"envoy: ":      func(h *aHost) { h.cfg.Envoy, h.cfg.Proxies = "/nowhere/envoy", []agent.Proxy{proxy} },
		"proxies[0].user: ": func(h *aHost) {
			h.cfg.ProxyUser, h.cfg.Proxies = "no-such", []agent.Proxy{{Name: "web", Mesh: "shop", VirtualNode: "web", Bind: "127.0.0.2"}}
		},
		"proxies[0].bind: ": func(h *aHost) { h.cfg.Envoy, h.cfg.Proxies = "/bin/true", []agent.Proxy{proxy} },
		"data_dir: who the applications are: ": func(h *aHost) {
			if err := os.MkdirAll(h.cfg.DataDir, 0o700); err != nil {
				t.Fatal(err)
			}
			h.write("applications.json", []byte("{"))
		},
		"xds.sock exists and is not a socket": func(h *aHost) {
			if err := os.MkdirAll(h.cfg.SocketDir, 0o700); err != nil {
				t.Fatal(err)
			}
			h.write("../s/xds.sock", nil)
		},
	} {
		h := newHost(t, f)
		h.token(f.token())
		if key != "data_dir: " && key != "socket_dir: " {
			if err := agent.Check(t.Context(), h.cfg); err != nil {
				t.Errorf("before: %v", err)
			}
		}
		spoil(h)
		wantError(t, agent.Check(t.Context(), h.cfg), key)
		wantError(t, h.run(), key)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attests != 0 || len(f.tokens) != 8 {
		t.Errorf("%d attempts to join, %d tokens left", f.attests, len(f.tokens))
	}
}

func TestACheckNamesWhatAStartLacks(t *testing.T) {
	f := newFakeServer(t)
	h := newHost(t, f)
	wantError(t, agent.Check(t.Context(), h.cfg), "token_file: this host has not joined", "signet token create")
	h.cfg.TokenFile = "/nowhere/token"
	wantError(t, agent.Check(t.Context(), h.cfg), "token_file: open /nowhere/token")
	if _, err := os.Stat(h.cfg.DataDir); err == nil {
		t.Error("the check made data_dir")
	}
	authority, hostKey := parts.NewHostCA(t, "hosts"), parts.ECKey(t, elliptic.P256())
	h.cfg.TokenFile, h.cfg.Trust = "", parts.WriteCerts(t, f.root)
	h.cfg.Join.X509PoP.Certificate, h.cfg.Join.X509PoP.Key = parts.WriteHost(t, hostKey, authority.Sign(hostKey.Public(), nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	wantError(t, agent.Check(t.Context(), h.cfg), "join.x509pop.certificate: ", "expired at")
	h = joined(t, f)
	if err := agent.Check(t.Context(), h.cfg); err != nil {
		t.Errorf("a host that joined: %v", err)
	}
	r := newRig(t, nil)
	if err := agent.Check(t.Context(), r.cfg); err != nil {
		t.Errorf("beside the agent that runs with it: %v", err)
	}
	cfg := r.cfg
	cfg.DataDir = h.cfg.DataDir
	wantError(t, agent.Check(t.Context(), cfg), "xds.sock is in use")
}

func TestTwoAgentsDoNotShareADataDir(t *testing.T) {
	r := newRig(t, nil)
	err := join(t, r.addr, r.token(), func(c *agent.Config) { c.DataDir = r.cfg.DataDir })
	wantError(t, err, "data_dir: ", "is in use: is another agent running?")
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
