package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/dev"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// closed denies one path to everybody.
const closed = `package signet.authz

allow contains "what is not closed" if input.request.path != "/closed"
`

const (
	ownID   = "spiffe://test.example/test/web"
	frontID = "spiffe://test.example/test/front"
	webHost = "http://web.test.internal:8080"
	// ownLimit is in the place of the page's, for the outbound listener and for the others.
	ownLimit = 20
)

// ownEnvoy is an Envoy that is not the agent's: its program lies elsewhere, its
// bootstrap and binding are those of docs/ENVOY.md.
type ownEnvoy struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func TestAnEnvoyThatTheAgentDidNotStartIsAProxyByItsBinding(t *testing.T) {
	loopback, err := dev.ReserveLoopback(2, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loopback.Close() })
	bind, app := loopback.Addresses[0], loopback.Addresses[1]
	dir := t.TempDir()
	program := copyOf(t, parts.Envoy(t), filepath.Join(dir, "envoy"))
	page := func(agentDir string) []string {
		return ownBlocks(t, "/opt/web", dir, "/run/signet", agentDir, "unix:uid:1001", fmt.Sprintf("unix:uid:%d", uid()),
			"192.0.2.7", bind, "127.0.0.1", app, "shop", "test", "connection_limit: 25000", fmt.Sprintf("connection_limit: %d", ownLimit),
			"downstream_connections: 25000", fmt.Sprintf("downstream_connections: %d", ownLimit))
	}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "web"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("web", "web"), page("")[0]),
		Policy: map[string]string{"closed.rego": closed},
	})
	w.Nodes["web"] = meshtest.Node{Name: "web", Bind: bind, App: app, Egress: app}
	serveEcho(t, net.JoinHostPort(app, "8080"))
	e := startOwn(t, program, dir, page(w.AgentDir())[1])
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("its log:\n%s", e.said(t))
		}
	})
	w.AwaitRoute("front", webHost+"/")
	w.AwaitRoute("web", host+"/orders")

	t.Run("it serves and calls by mTLS", func(t *testing.T) {
		if a := w.Get("front", webHost+"/"); a.Status != 200 || a.Seen.Service != "web" || a.Seen.Caller() != frontID {
			t.Errorf("front to web: %d, called by %q: %s", a.Status, a.Seen.Caller(), a.Body)
		}
		if a := w.Get("web", host+"/orders"); a.Status != 200 || a.Seen.Caller() != ownID {
			t.Errorf("web to orders: %d, called by %q: %s", a.Status, a.Seen.Caller(), a.Body)
		}
	})
	const registered = "web-envoy@"
	endpoint := func() (there, healthy bool) { // as its agent reports it
		for _, p := range w.Proxies() {
			if p.GetName() == registered+bind {
				return true, p.GetHealthy()
			}
		}
		return false, false
	}
	t.Run("it is registered", func(t *testing.T) {
		if out, _ := w.CLI("proxies", registered+bind, "-o", "wide"); !regexp.MustCompile(`(?m)^` + registered + bind + ` +test/web +ready +synced .* ` + bind + ` `).MatchString(out) {
			t.Errorf("signet proxies:\n%s", out)
		}
	})
	t.Run("its requests are decided", func(t *testing.T) {
		a := w.Get("front", webHost+"/closed")
		if a.Status != 403 || a.Denied != "policy" {
			t.Fatalf("%d %q", a.Status, a.Denied)
		}
		if out, code := w.CLI("explain", a.DecisionID); code != 0 || !regexp.MustCompile(`(?m)^to +`+ownID+`$`).MatchString(out) {
			t.Errorf("explain: exit %d\n%s", code, out)
		}
	})
	t.Run("its way out has the limit of the page, and what comes in is served", func(t *testing.T) {
		for range 3 * ownLimit {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(app, fmt.Sprint(meshtest.EgressPort)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }() // nothing was said on it
		}
		eventually(t, 10*time.Second, "connections beyond the limit", func() bool {
			m := regexp.MustCompile(`_15001\.downstream_cx_overflow: (\d+)`).FindStringSubmatch(e.admin(t, "/stats?filter=downstream_cx_overflow"))
			return m != nil && len(m[1]) > 1 // 10 and more: of one listener, by its name
		})
		if a := w.Get("front", webHost+"/"); a.Status != 200 {
			t.Errorf("front to web: %d %s", a.Status, a.Body)
		}
	})
	t.Run("its ways in have the limit of the page, and what goes out is served", func(t *testing.T) {
		for range 3 * ownLimit {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(bind, "8080"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }() // a request is enough to be denied, and to stay
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				break // it was closed: there are as many as there may be
			}
		}
		eventually(t, 10*time.Second, "connections beyond the limit", func() bool {
			m := regexp.MustCompile(`_8080\.downstream_global_cx_overflow: (\d+)`).FindStringSubmatch(e.admin(t, "/stats?filter=downstream_global_cx_overflow"))
			return m != nil && m[1] != "0"
		})
		fresh := w.Client("web")
		fresh.CloseIdleConnections()
		if a, err := meshtest.Do(t, fresh, http.MethodGet, host+"/orders"); err != nil || a.Status != 200 {
			t.Errorf("web to orders: %v %v", a, err)
		}
	})
	t.Run("it goes on over a restart of the agent", func(t *testing.T) {
		serial := func() string {
			return fmt.Sprint(regexp.MustCompile(`"serial_number": ?"[0-9a-f]+"`).FindAllString(e.admin(t, "/certs"), -1))
		}
		before := serial()
		w.Agent.Kill()
		w.StartAgent()
		w.AwaitProxies()
		// Asked of Envoy: a connection that it opened before the new one came keeps the old one as long as it lives.
		eventually(t, 60*time.Second, "a certificate from the new agent, and calls with it", func() bool {
			a, err := meshtest.Do(t, w.Client("web"), http.MethodGet, host+"/orders")
			now := serial()
			return err == nil && a.Status == 200 && now != before && now != "[]"
		})
		eventually(t, 30*time.Second, "it is decided again", func() bool {
			a, err := meshtest.Do(t, w.Client("front"), http.MethodGet, webHost+"/")
			return err == nil && a.Status == 200
		})
		// Until then the server keeps it, as one that the new agent has not seen.
		eventually(t, 10*time.Second, "a healthy endpoint of the new agent", func() bool { _, is := endpoint(); return is })
	})
	t.Run("it and the agent's are content with what they were sent", func(t *testing.T) {
		for line := range strings.Lines(e.said(t) + w.Agent.Tail(1<<20)) {
			if strings.Contains(strings.ToLower(line), "deprecat") || strings.Contains(line, "rejected") {
				t.Error(line)
			}
		}
	})
	whole := t
	t.Run("when it ends it is unhealthy, and then gone", func(t *testing.T) {
		e.end()
		eventually(t, 5*time.Second, "an unhealthy endpoint", func() bool { there, is := endpoint(); return there && !is })
		eventually(t, 30*time.Second, "no endpoint", func() bool { there, _ := endpoint(); return !there })
		e = startOwn(whole, program, dir, page(w.AgentDir())[1])
		w.AwaitRoute("front", webHost+"/")
		w.AwaitRoute("web", host+"/orders")
	})
	t.Run("it loses what it had with its binding", func(t *testing.T) { unbound(t, w, e) })
}

// unbound deletes the binding: Envoy goes on and has nothing left.
func unbound(t *testing.T, w *meshtest.World, e *ownEnvoy) {
	if out, code := w.CLI("delete", "binding", "web-envoy"); code != 0 {
		t.Fatalf("delete: %s", out)
	}
	began := time.Now()
	eventually(t, 10*time.Second, "nobody is let in", func() bool {
		a, err := meshtest.Do(t, w.Client("front"), http.MethodGet, webHost+"/")
		return err == nil && a.Status == 503
	})
	t.Logf("inbound requests were refused %s after the binding was deleted", time.Since(began))
	eventually(t, 10*time.Second, "nobody is let out", func() bool {
		_, err := meshtest.Do(t, w.Client("web"), http.MethodGet, host+"/orders")
		return err != nil
	})
	t.Logf("outbound connections were refused %s after", time.Since(began))
	eventually(t, 40*time.Second, "it is told why", func() bool {
		return strings.Contains(e.said(t), "no binding lets this process be a proxy here")
	})
	eventually(t, 40*time.Second, "the agent says what it was seen to be", func() bool {
		return strings.Contains(w.Agent.Tail(1<<20), "unix:path:"+e.cmd.Path)
	})
	certs, listeners := e.admin(t, "/certs"), e.admin(t, "/listeners")
	if strings.Contains(certs, ownID) || listeners != "" {
		t.Errorf("it has still\n%s\n%s", certs, listeners)
	}
}

// ownBlocks are the YAML blocks of docs/ENVOY.md with old, new, old, new…
// replaced: manifests and bootstrap.
func ownBlocks(t *testing.T, replace ...string) []string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(parts.Root(), "docs", "ENVOY.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		out = append(out, strings.NewReplacer(replace...).Replace(m[1]))
	}
	if len(out) != 3 {
		t.Fatalf("docs/ENVOY.md has %d YAML blocks, want manifests, bootstrap and that of plain SDS", len(out))
	}
	return out
}

// copyOf is a program at another path, so that it is another one to a binding.
func copyOf(t *testing.T, program, path string) string {
	t.Helper()
	in, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }() // read only
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func serveEcho(t *testing.T, address string) {
	t.Helper()
	serveAppAt(t, address, meshtest.Echo("web"))
}

func serveAppAt(t *testing.T, address string, app http.Handler) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close(); <-done })
}

func startOwn(t *testing.T, program, dir, bootstrap string) *ownEnvoy {
	t.Helper()
	file := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &ownEnvoy{log: filepath.Join(dir, "envoy.log"), done: make(chan struct{})}
	log, err := os.Create(e.log)
	if err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), program, "--config-path", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a killed test
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(e.done)
		_ = e.cmd.Wait() // its log says why
	}()
	t.Cleanup(func() {
		e.end()
		_ = log.Close() // written by Envoy
	})
	return e
}

// end kills it.
func (e *ownEnvoy) end() {
	_ = e.cmd.Process.Kill() // it may have ended by itself
	<-e.done
}

// admin is what its admin interface says, which it does while it lives.
func (e *ownEnvoy) admin(t *testing.T, path string) string {
	t.Helper()
	return string(adminAt(t, filepath.Join(filepath.Dir(e.log), "admin.sock"), path))
}

// said is its log.
func (e *ownEnvoy) said(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(e.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
