package readonly

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// envoy answers as one's admin interface does.
type envoy struct {
	mu    sync.Mutex
	asked []string
	pages map[string]string
	ready int
	fails error
}

func (e *envoy) ask(_ context.Context, path string) (int, []byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, path)
	base, _, _ := strings.Cut(path, "?")
	status := http.StatusOK
	if base == readyPath {
		status = e.ready
	}
	return status, []byte(e.pages[base]), e.fails
}

func newEnvoy() *envoy {
	return &envoy{ready: http.StatusOK, pages: map[string]string{
		readyPath: "LIVE\n",
		infoPath:  `{"version": "x/1.40.0/Clean", "state": "LIVE", "command_line_options": {"config_path": "/dev/fd/3"}, "node": {"id": "mesh/shop/virtualNode/web", "cluster": "web", "metadata": {"signet.shape": {"authz_socket": "/run/signet/authz.sock"}}, "extensions": [{"name": "x"}]}}`,
		statsPath: "envoy_server_live{} 1\n",
	}}
}

// serve runs it at a free port.
func serve(t *testing.T, ask Ask) (base string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { Run(ctx, Config{Address: address, Ask: ask, Log: slog.New(slog.DiscardHandler)}) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = c.Close() // nothing was asked
			return "http://" + address
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// said is an answer without its body.
type said struct {
	StatusCode int
	Status     string
	Allow      string
}

func do(t *testing.T, method, url string) (said, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return said{resp.StatusCode, resp.Status, resp.Header.Get("Allow")}, string(body)
}

func TestThreePathsCanBeReadAndNothingElse(t *testing.T) {
	e := newEnvoy()
	base := serve(t, e.ask)
	for path, want := range map[string]string{readyPath: "LIVE\n", infoPath: "\n \"state\": \"LIVE\",\n", statsPath: "\nenvoy_server_live 1\n", statsPath + "?usedonly&filter=.*": "\nenvoy_server_live 1\n"} {
		if resp, body := do(t, http.MethodGet, base+path); resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
		if resp, body := do(t, http.MethodHead, base+path); resp.StatusCode != http.StatusOK || body != "" {
			t.Errorf("HEAD %s: %s %q", path, resp.Status, body)
		}
	}
	e.mu.Lock()
	asked := len(e.asked)
	e.mu.Unlock()
	for _, path := range []string{"/", "/quitquitquit", "/config_dump", "/certs", "/stats", "/ready/", "//ready", "/server_info/..", "/healthcheck/fail"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			resp, body := do(t, method, base+path)
			if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "/ready, /server_info and /stats/prometheus") {
				t.Errorf("%s %s: %s %q", method, path, resp.Status, body)
			}
		}
	}
	for _, path := range []string{readyPath, infoPath, statsPath} {
		resp, body := do(t, http.MethodPost, base+path)
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Allow != "GET, HEAD" || !strings.Contains(body, "there is GET") {
			t.Errorf("POST %s: %s %q", path, resp.Status, body)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.asked) != asked {
		t.Errorf("Envoy was asked %v", e.asked[asked:])
	}
}

func TestOfServerInfoNoFoldersAreGiven(t *testing.T) {
	_, body := do(t, http.MethodGet, serve(t, newEnvoy().ask)+infoPath)
	if !strings.Contains(body, "mesh/shop/virtualNode/web") || strings.Contains(body, "/run/signet") || strings.Contains(body, "/dev/fd") || strings.Contains(body, "extensions") {
		t.Error(body)
	}
}

func TestReadyIsWhatEnvoySays(t *testing.T) {
	e := newEnvoy()
	e.ready, e.pages[readyPath] = http.StatusServiceUnavailable, "DRAINING\n"
	if resp, body := do(t, http.MethodGet, serve(t, e.ask)+readyPath); resp.StatusCode != http.StatusServiceUnavailable || body != "DRAINING\n" {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestAnEnvoyThatDoesNotAnswerIsSaidSo(t *testing.T) {
	e := newEnvoy()
	e.fails = errors.New("dial unix /run/signet/proxies/web/admin.sock: connection refused")
	base := serve(t, e.ask)
	for _, path := range []string{readyPath, infoPath, statsPath} {
		if resp, body := do(t, http.MethodGet, base+path); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "Envoy does not answer") || strings.Contains(body, "/run/signet") {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	e.mu.Lock()
	e.fails, e.pages = nil, map[string]string{infoPath: "<html>"}
	e.mu.Unlock()
	time.Sleep(briefly)
	if resp, body := do(t, http.MethodGet, base+infoPath); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestWhoComesWithoutEndAsksEnvoyOnceForAnAnswer(t *testing.T) {
	var at, most, asked atomic.Int64
	ask := func(context.Context, string) (int, []byte, error) {
		most.Store(max(most.Load(), at.Add(1)))
		asked.Add(1)
		time.Sleep(50 * time.Millisecond)
		at.Add(-1)
		return http.StatusOK, nil, nil
	}
	base := serve(t, ask)
	begun := time.Now()
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() { do(t, http.MethodGet, base+statsPath) })
	}
	wg.Wait()
	if n, may := asked.Load(), 1+int64(time.Since(begun)/keep); n > may || most.Load() != 1 {
		t.Errorf("asked %d times, want %d, %d at a time", n, may, most.Load())
	}
}

func TestOnlyAddressesOfLoopbackWithAPortAreTaken(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9901": "", "127.0.0.7:1": "", "[::1]:9901": "", "[::ffff:127.0.0.1]:9901": "",
		"0.0.0.0:9901": "not of loopback", "10.0.0.1:9901": "not of loopback", "[::]:9901": "not of loopback", "[fd00::1]:9901": "not of loopback",
		":9901": "want an address", "9901": "want an address", "localhost:9901": "want an address", "127.0.0.1": "want an address", "127.0.0.1:0": "want an address", "127.0.0.1:70000": "want an address",
	} {
		err := ValidAddress(address)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

func TestAnAddressThatSomebodyHasIsTriedAgain(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := make(lines, 8)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		Run(ctx, Config{Address: l.Addr().String(), Ask: newEnvoy().ask, Log: slog.New(slog.NewTextHandler(told, nil))})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	if text := <-told; !strings.Contains(text, "address already in use") {
		t.Error(text)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		if err == nil {
			_ = c.Close() // nothing was asked
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

// values of a page, by series.
func values(page []byte) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if name, value, ok := cutLast(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			all[name] = value
		}
	}
	return all
}

func TestAPageHasTheSameSeriesWhateverTheMeshHas(t *testing.T) {
	var large strings.Builder
	for i := range 300 {
		fmt.Fprintf(&large, "envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"cds_egress_shop_n%d_http_8080\"} 2\n", i)
		fmt.Fprintf(&large, "envoy_cluster_membership_total{envoy_cluster_name=\"cds_egress_shop_n%d_http_8080\"} 1\n", i)
	}
	large.WriteString("envoy_cluster_membership_total{envoy_cluster_name=\"signet_authz\"} 1\n")
	few, many := values(newSums().page(nil)), values(newSums().page([]byte(large.String())))
	if len(few) != 59 || !slices.Equal(slices.Sorted(maps.Keys(few)), slices.Sorted(maps.Keys(many))) {
		t.Errorf("%d and %d series, want the same 59", len(few), len(many))
	}
	if n := many[`envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="egress"}`]; n != "600" {
		t.Errorf("the sum over clusters is %s", n)
	}
	if n := many[`envoy_cluster_membership_total{envoy_cluster_name="egress"}`]; n != "300" {
		t.Errorf("the endpoints of all are %s", n)
	}
}

func TestSeriesAreSumsByTheWay(t *testing.T) {
	got := values(newSums().page([]byte(`# TYPE envoy_http_downstream_rq_xx counter
envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ingress"} 3
envoy_http_http2_9090_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ingress"} 4
envoy_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="egress"} 5
envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="admin"} 100
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress",le="25"} 6
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress",le="+Inf"} 7
envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="ingress"} 70.5
envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="ingress"} 7
envoy_tcp_downstream_cx_total{envoy_tcp_prefix="ingress.tcp.5432"} 8
envoy_cluster_membership_healthy{envoy_cluster_name="x\",envoy_cluster_name=\"cds_egress_x"} 9
envoy_listener_ssl_handshake{envoy_listener_address="127.0.0.1_8080"} 10
envoy_listener_ssl_handshake{envoy_listener_address="127.0.0.1_9090"} 1
envoy_server_uptime{} 12
`)))
	want := map[string]string{
		`envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ingress"}`: "7",
		`envoy_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="egress"}`:  "5",
		`envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress",le="25"}`:              "6",
		`envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress",le="+Inf"}`:            "7",
		`envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="ingress"}`:                         "70.5",
		`envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="ingress"}`:                       "7",
		`envoy_tcp_downstream_cx_total{envoy_tcp_prefix="ingress"}`:                                           "8",
		`envoy_listener_ssl_handshake`: "11",
		`envoy_server_uptime`:          "12",
	}
	for series, value := range got {
		if w, ok := want[series]; ok && value != w || !ok && value != "0" {
			t.Errorf("%s is %s, want %s", series, value, w)
		}
		delete(want, series)
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
}

func TestACounterDoesNotFallWhereAClusterIsTakenAwayOrEnvoyBeginsAnew(t *testing.T) {
	const series = `envoy_cluster_upstream_rq_timeout{envoy_cluster_name="egress"}`
	page := func(counts map[string]int) []byte {
		var b strings.Builder
		for name, n := range counts {
			fmt.Fprintf(&b, "envoy_cluster_upstream_rq_timeout{envoy_cluster_name=\"cds_egress_%s\"} %d\n", name, n)
		}
		return []byte(b.String())
	}
	s := newSums()
	for _, step := range []struct {
		counts map[string]int
		want   string
	}{
		{map[string]int{"a": 10, "b": 5}, "15"},
		{map[string]int{"a": 12}, "17"},           // b is taken away
		{map[string]int{"a": 12, "b": 1}, "18"},   // and comes back
		{map[string]int{"a": 2}, "20"},            // another Envoy
		{nil, "20"},                               // which has not counted
		{map[string]int{"a": 2, "b": 2}, "24"},    // as it says
		{map[string]int{"a": 2, "b": 302}, "324"}, // goes on
	} {
		if got := values(s.page(page(step.counts)))[series]; got != step.want {
			t.Errorf("after %v: %s, want %s", step.counts, got, step.want)
		}
	}
}

func TestEnvoyIsAskedForWhatIsCountedAlone(t *testing.T) {
	text, err := url.QueryUnescape(filter())
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(text)
	for _, name := range []string{
		"http.ingress.downstream_rq_2xx", "http.ingress.http.8080.downstream_rq_time", "http.egress.downstream_cx_active", "tcp.ingress.tcp.9000.downstream_cx_total",
		"cluster.cds_egress_shop_web_http_8080.upstream_rq_timeout", "cluster.cds_ingress_shop_web_http_8080.membership_healthy",
		"listener.10.0.0.1_8080.ssl.handshake", "server.live",
	} {
		if !wanted.MatchString(name) {
			t.Errorf("%s is left out", name)
		}
	}
	for _, name := range []string{
		"http.ingress.downstream_rq_1xx", "http.admin.downstream_rq_2xx", "cluster.signet_authz.membership_total", "cluster.cds_egress_x.upstream_rq_time",
		"listener.10.0.0.1_8080.downstream_cx_total", "server.live_x", "cluster.cds_egress_x.ssl.handshake",
	} {
		if wanted.MatchString(name) {
			t.Errorf("%s is asked for", name)
		}
	}
}

func TestThePageOfMetricsListsTheSeries(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range families {
		var labels []string
		for _, m := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(f.series()[0], -1) {
			labels = append(labels, "`"+m[1]+"`")
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %d | %s |", f.metric(), strings.Join(labels, ", "), len(f.series()), f.help))
	}
	got := regexp.MustCompile("(?m)^\\| `envoy_.*$").FindAllString(string(content), -1)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || !strings.HasPrefix(got[i], strings.TrimSuffix(want[i], ". |")) {
			t.Fatalf("docs/METRICS.md does not list what there is, from %q on: want\n%s", got[min(i, len(got)):], strings.Join(want, "\n"))
		}
	}
}
