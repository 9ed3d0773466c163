package xdstest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/ads"
	"signet.example/test/meshtest"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// proxy is a real Envoy that is served one view by our own ADS server.
type proxy struct {
	t     *testing.T
	view  *ads.View
	admin string
	errs  *lockedBuffer
}

// View makes the view every client's.
func (p *proxy) View(context.Context, *corev3.Node) (*ads.View, error) { return p.view, nil }

// loopback is an address of the test's own, so that tests may run side by side.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 2+rand.IntN(250)) // #nosec G404
}

// startProxy runs Envoy with what c describes and the secrets that it names.
func startProxy(t *testing.T, c xdstest.Case, pki *pki) *proxy {
	t.Helper()
	binary := meshtest.Envoy(t)
	p := &proxy{t: t, view: ads.NewView(c.Name, ads.Proxy), errs: new(lockedBuffer)}
	dir := socketDir(t)
	g := grpc.NewServer(ads.ServerOptions()...)
	(&ads.Server{Views: p}).Register(g)
	l, err := net.Listen("unix", filepath.Join(dir, "xds.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { g.Stop(); wg.Wait() })
	p.publish(c, pki)

	config := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, bootstrap, xds.NodeID(c.Mesh, c.Node), filepath.Join(dir, "xds.sock")), 0o600); err != nil {
		t.Fatal(err)
	}
	adminFile := filepath.Join(dir, "admin")
	cmd := exec.Command(binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", //nolint:noctx // ended by the cleanup, which waits
		"--admin-address-path", adminFile, "-l", "warn", "--drain-time-s", "1")
	cmd.Stdout, cmd.Stderr = p.errs, p.errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Envoy said:\n%s", p.errs)
		}
	})
	eventually(t, "Envoy's admin address", func() bool {
		a, err := os.ReadFile(adminFile) // #nosec G304 -- our own
		p.admin = string(a)
		return err == nil && p.admin != ""
	})
	p.settle()
	return p
}

// bootstrap has nothing but the way to everything else.
const bootstrap = `
node: {id: %q, cluster: test}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: agent}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: agent
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: agent, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
`

// publish builds the view and completes it as an agent would.
func (p *proxy) publish(c xdstest.Case, pki *pki) {
	p.t.Helper()
	set, err := xds.Build(c.Input, c.Mesh, c.Node, c.Shape)
	if err != nil {
		p.t.Fatal(err)
	}
	full, err := set.Merge(pki.secrets(p.t, set))
	if err != nil {
		p.t.Fatal(err)
	}
	p.view.Publish(full)
}

// settle waits until Envoy has acknowledged every resource that it asked for.
func (p *proxy) settle() {
	p.t.Helper()
	var waiting string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("not acknowledged: %s; refused: %+v", waiting, p.view.Rejected())
		}
	}()
	eventually(p.t, "Envoy has the view", func() bool {
		for _, r := range p.view.Rejected() {
			p.t.Fatalf("Envoy refuses %s: %s", r.Name, r.Message)
		}
		set := p.view.Set()
		for _, typeURL := range set.Types() {
			for _, r := range set.Type(typeURL) {
				if version, n, _ := p.view.Acked(typeURL, r.Name); version != r.Version || n == 0 {
					waiting = r.Name
					return false
				}
			}
		}
		return true
	})
}

// dump is Envoy's own account of what it runs.
func (p *proxy) dump() []byte {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.admin+"/config_dump?include_eds", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// socketDir is short: a Unix socket's path has at most 107 bytes.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "xds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// sdsNames finds the names of all secrets that a set refers to.
func sdsNames(t *testing.T, set *ads.Set) []string {
	t.Helper()
	var names []string
	var find func(v any)
	find = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if name, ok := v["name"].(string); ok && v["sdsConfig"] != nil {
				names = append(names, name)
			}
			for _, w := range v {
				find(w)
			}
		case []any:
			for _, w := range v {
				find(w)
			}
		}
	}
	for _, typeURL := range []string{ads.ListenerType, ads.ClusterType} {
		for _, r := range set.Type(typeURL) {
			m, err := xds.Message(r)
			if err != nil {
				t.Fatal(err)
			}
			j, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(j, &v); err != nil {
				t.Fatal(err)
			}
			find(v)
		}
	}
	return names
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(b.b.String())
}
