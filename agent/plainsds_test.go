package agent_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/dev"
	"signet.example/identity"
	"signet.example/test/parts"
)

// plain is the bootstrap of docs/ENVOY.md for plain SDS, changed.
func plain(t *testing.T, change ...string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(parts.Root(), "docs", "ENVOY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## 5. ")
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(section)
	if !ok || block == nil {
		t.Fatal("docs/ENVOY.md has no bootstrap for plain SDS")
	}
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(block[1], change[i]) {
			t.Fatalf("the bootstrap has no %q", change[i])
		}
	}
	return strings.NewReplacer(change...).Replace(block[1])
}

// envoyPath is the selector that fits it.
func envoyPath(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(parts.Envoy(t))
	if err != nil {
		t.Fatal(err)
	}
	return "unix:path:" + path
}

// startPlain runs an Envoy that the agent knows nothing of but its process.
func startPlain(t *testing.T, bootstrap string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), parts.Envoy(t), "--config-path", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a killed test
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // its log says why
		if t.Failed() {
			t.Logf("envoy's log:\n%s", log.String())
		}
	})
}

// pair is a certificate of the test's root for a service of it.
func (f *fakeServer) pair(path string) tls.Certificate {
	key := f.key()
	return tls.Certificate{Certificate: [][]byte{f.leaf(path, &key.PublicKey, time.Hour).Raw}, PrivateKey: key}
}

// is verifies that the other end is this identity.
func (f *fakeServer) is(path string, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		id, err := identity.VerifyChain(s.PeerCertificates, td, identity.PoolOf(f.root), time.Now(), usage)
		if err == nil && id.Path() != path {
			err = fmt.Errorf("it is %s", id)
		}
		return err
	}
}

// orders is a service that only /shop/web may call.
func (f *fakeServer) orders(t *testing.T) (port string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "orders") // the caller sees what is missing
	}))
	s.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{f.pair("/shop/orders")}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: f.is("/shop/web", x509.ExtKeyUsageClientAuth),
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// front calls what listens at address as /shop/front, on a connection of its own, and returns
// the serial number of the certificate that it is shown.
func (f *fakeServer) front(address string, want string) (serial *big.Int, err error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{f.pair("/shop/front")}, InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does
		VerifyConnection: f.is(want, x509.ExtKeyUsageServerAuth),
	}}}
	answer, err := client.Get("https://" + address + "/")
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK || string(body) != "orders" {
		return nil, fmt.Errorf("%d %s", answer.StatusCode, body)
	}
	return answer.TLS.PeerCertificates[0].SerialNumber, nil
}

func TestAnEnvoyThatOthersConfigureHasItsSecretsByEachKindOfName(t *testing.T) {
	for name, change := range map[string][]string{
		"default and ROOTCA, SPIFFE ID and ALL": nil,
		"SPIFFE ID and ALL, default and ROOTCA": {
			"- name: default", `- name: "spiffe://test.example/shop/web"`, "{name: ROOTCA,", "{name: ALL,",
			`[{name: "spiffe://prod.example/shop/web",`, "[{name: default,", "{name: ALL,", "{name: ROOTCA,",
		},
		"trust domain, state of the world": {
			"{name: ROOTCA,", `{name: "spiffe://test.example",`, "{name: ALL,", `{name: "spiffe://test.example",`, "api_type: DELTA_GRPC", "api_type: GRPC",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{entry("web", "/shop/web", envoyPath(t))} })
			loopback, err := dev.ReserveLoopback(1, 8443)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = loopback.Close() }() // it is given back
			in := loopback.Addresses[0]
			startPlain(t, plain(t, append(change, "192.0.2.7", in, "address: 192.0.2.8, port_value: 8443", "address: 127.0.0.1, port_value: "+r.orders(t),
				"prod.example", "test.example", "/run/signet", r.dir, "/opt/web", t.TempDir())...))
			r.await("a call through it", func() bool {
				_, err = r.front(in+":8443", "/shop/web")
				return err == nil
			})
			anybody := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, Certificates: []tls.Certificate{r.pair("/shop/other")}, MaxVersion: tls.VersionTLS12} //nolint:gosec // what it shows is not asked
			if c, err := tls.Dial("tcp", in+":8443", anybody); err == nil {
				_ = c.Close() // nothing was said
				t.Error("somebody else came in")
			}
		})
	}
}

// later is a second listener of the page's Envoy, by a name that nobody has yet.
func later(bootstrap, in string) string {
	i, j := strings.Index(bootstrap, "    - name: in\n"), strings.Index(bootstrap, "  clusters:\n")
	second := strings.NewReplacer("- name: in\n", "- name: later\n", "address: "+in, "address: "+in, "8443", "8444", "&signet", "&another", "*signet", "*another", "- name: default", `- name: "spiffe://test.example/shop/later"`)
	return bootstrap[:j] + second.Replace(bootstrap[i:j]) + bootstrap[j:]
}

func TestANameThatAnEnvoyDoesNotHaveIsHeldAndTheOthersGoOn(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.lifetime = 20 * time.Second
		f.entries = []*api.Entry{entry("web", "/shop/web", envoyPath(t))}
	})
	loopback, err := dev.ReserveLoopback(1, 8443, 8444)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = loopback.Close() }() // it is given back
	in := loopback.Addresses[0]
	admin := t.TempDir()
	startPlain(t, later(plain(t, "192.0.2.7", in, "address: 192.0.2.8, port_value: 8443", "address: 127.0.0.1, port_value: "+r.orders(t),
		"prod.example", "test.example", "/run/signet", r.dir, "/opt/web", admin), in))
	var first *big.Int
	r.await("a call through it", func() bool {
		first, err = r.front(in+":8443", "/shop/web")
		return err == nil
	})
	if _, err := r.front(in+":8444", "/shop/later"); err == nil {
		t.Error("it has a certificate that nobody granted")
	}
	// Under calls all the time: a new certificate, and the name that was not there.
	var calls, failed atomic.Int32
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
			calls.Add(1)
			if _, err := r.front(in+":8443", "/shop/web"); err != nil {
				failed.Add(1)
				t.Log(err)
			}
		}
	}()
	r.change(func(f *fakeServer) {
		e := entry("later", "/shop/later", envoyPath(t))
		e.Since = 9 // so that the default stays
		f.entries = append(f.entries, e)
	})
	granted := time.Now()
	r.await("the name that was held", func() bool {
		_, err := r.front(in+":8444", "/shop/later")
		return err == nil
	})
	t.Logf("served %s after it was granted", time.Since(granted))
	r.await("another certificate", func() bool {
		now, err := r.front(in+":8443", "/shop/web")
		return err == nil && now.Cmp(first) != 0
	})
	close(done)
	<-stopped
	if failed.Load() > 0 || calls.Load() < 10 {
		t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
	}
	stats := adminOf(t, filepath.Join(admin, "admin.sock"), "/stats?filter=listener_manager.listener_(added|modified|removed)")
	if !strings.Contains(stats, "listener_added: 2\n") || !strings.Contains(stats, "listener_modified: 0\n") || !strings.Contains(stats, "listener_removed: 0\n") {
		t.Errorf("its listeners were touched:\n%s", stats)
	}
	// What is taken away is not kept.
	r.change(func(f *fakeServer) { f.entries = f.entries[:1] })
	r.await("the end of the name that was taken away", func() bool {
		_, err := r.front(in+":8444", "/shop/later")
		_, other := r.front(in+":8443", "/shop/web")
		return err != nil && other == nil
	})
	r.change(func(f *fakeServer) { f.entries = nil })
	r.await("the end of the last", func() bool {
		_, err := r.front(in+":8443", "/shop/web")
		return err != nil
	})
}

func adminOf(t *testing.T, socket, path string) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	answer, err := client.Get("http://admin" + path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// secrets opens a stream of plain SDS as this process.
func (r *rig) secrets(names ...string) secretv3.SecretDiscoveryService_DeltaSecretsClient {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r.t.Cleanup(cancel)
	stream, err := secretv3.NewSecretDiscoveryServiceClient(r.dial("xds.sock")).DeltaSecrets(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "any"}, ResourceNamesSubscribe: names}) // an error shows at Recv
	return stream
}

func TestPlainSDSGivesAProcessWhatItsEntriesGrantAndNothingElse(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("other", "/shop/other", "unix:path:/usr/bin/other")}
	})
	r.await("a refusal", func() bool {
		_, err := r.secrets("spiffe://test.example/shop/other", "default", "ROOTCA", "ALL").Recv()
		return status.Code(err) == codes.PermissionDenied && status.Convert(err).Message() == "no identity is registered for this process"
	})
	if log := r.log.String(); !strings.Contains(log, "xds.sock: process refused") {
		t.Errorf("the log does not say why: %s", log)
	}
	r.change(func(f *fakeServer) { f.entries = append(f.entries, entry("mine", "/shop/mine", self(t))) })
	var stream secretv3.SecretDiscoveryService_DeltaSecretsClient
	var m *discoveryv3.DeltaDiscoveryResponse
	r.await("its secrets", func() (ok bool) {
		stream = r.secrets("spiffe://test.example/shop/other", "spiffe://test.example/shop/mine", "default", "ROOTCA", "ALL", "spiffe://test.example", "spiffe://other.example")
		var err error
		m, err = stream.Recv()
		return err == nil
	})
	var names []string
	for _, s := range m.GetResources() {
		names = append(names, s.GetName())
	}
	if got := strings.Join(names, " "); got != "ALL ROOTCA default spiffe://test.example spiffe://test.example/shop/mine" {
		t.Errorf("it has %s", got)
	}
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ads.ClusterType}) // an error shows at Recv
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("clusters: %v", err)
	}
	if _, err := secretv3.NewSecretDiscoveryServiceClient(r.dial("xds.sock")).FetchSecrets(t.Context(), &discoveryv3.DiscoveryRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("fetched: %v", err)
	}
}
