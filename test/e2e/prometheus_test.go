package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/dev"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// An issuer whose keys cannot be fetched.
const lostIssuer = `apiVersion: signet.example/v1alpha1
kind: JWTIssuer
metadata: {name: lost}
spec: {issuer: "https://lost.test.internal", audiences: [shop], jwksURL: "https://127.0.0.1:9/keys"}
`

func TestPrometheusSeesEveryMetricAndARotation(t *testing.T) {
	program, promtool := parts.Program(t, "prometheus"), parts.Program(t, "promtool")
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: 20 * time.Second, Nodes: []string{"front", "back"}, Readable: []string{"front"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "back"),
			meshtest.VirtualNode("back", meshtest.Strict("test.example", "back")), meshtest.ServiceOfNode("back", "back"), lostIssuer),
	})
	w.AwaitRoute("front", "http://"+meshtest.HostOf("back")+"/")
	p := startPrometheus(w, program)
	w.Get("front", "http://undeclared.test.internal/") // which its proxy answers by itself

	p.await("all targets", `count(up == 1)`, func(v float64) bool { return v == 3 })
	p.await("the series of a proxy that can be read", `count({__name__=~"envoy_.*"})`, func(v float64) bool { return v == 59 })
	p.await("what goes out by it", `sum(envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix="egress"})`, func(v float64) bool { return v >= 2 })
	page := read(t, "docs", "METRICS.md")
	w.Await("every metric of docs/METRICS.md", 20*time.Second, func() error {
		names := p.names()
		for _, m := range regexp.MustCompile("(?m)^\\| `(signet_[a-z0-9_]+)`").FindAllStringSubmatch(page, -1) {
			if m[1] == "signet_server_cloud_map_errors_total" { // of what is not asked here
				continue
			}
			if !slices.Contains(names, m[1]) && !slices.Contains(names, m[1]+"_count") {
				return fmt.Errorf("%s is not there", m[1])
			}
		}
		return nil
	})

	const notAfter = `signet_agent_svid_not_after_timestamp_seconds{spiffe_id="spiffe://test.example/test/back"}`
	before := p.await("an SVID's end", notAfter, func(v float64) bool { return v > float64(time.Now().Unix()) })
	p.await("its rotation", notAfter, func(v float64) bool { return v > before })

	for name, address := range p.targets {
		cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(get(t, "http://"+address+"/metrics"))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool finds fault with the %s's page: %v\n%s", name, err, out)
		}
	}
	if firing := p.alerts(); len(firing) > 0 {
		t.Errorf("alerts of a mesh that is well: %v", firing)
	}
	w.Server.Stop()
	w.Await("the alert that the server is gone", 20*time.Second, func() error {
		if active := p.alerts(); !slices.Contains(active, "SignetDown") || !slices.Contains(active, "SignetAgentDisconnected") {
			return fmt.Errorf("active: %v", active)
		}
		return nil
	})
}

func TestAlertRulesFireWhenTheyShouldAndNotElse(t *testing.T) {
	promtool := parts.Program(t, "promtool")
	rules := filepath.Join("..", "..", "docs", "alerts.yaml")
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", rules}, {"test", "rules", filepath.Join("testdata", "alerts_test.yaml")}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	cases := readFile(t, filepath.Join("testdata", "alerts_test.yaml"))
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(readFile(t, rules), -1) {
		if n := strings.Count(cases, "alertname: "+m[1]+"\n"); n < 2 {
			t.Errorf("%s has %d cases, want one that fires and one that does not", m[1], n)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	return readFile(t, filepath.Join(append([]string{"..", ".."}, path...)...))
}

func get(t testing.TB, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // the test's context bounds it
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// prometheus scrapes a World.
type prometheus struct {
	w       *meshtest.World
	url     string
	targets map[string]string // server and agent
}

func startPrometheus(w *meshtest.World, program string) *prometheus {
	w.T.Helper()
	const port = 9090
	loopback, err := dev.ReserveLoopback(1, port)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { _ = loopback.Close() }) // it was only held
	p := &prometheus{w: w, url: fmt.Sprintf("http://%s:%d", loopback.Addresses[0], port), targets: map[string]string{}}
	rules, err := filepath.Abs(filepath.Join("..", "..", "docs", "alerts.yaml"))
	if err != nil {
		w.T.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n", rules)
	for name, dir := range map[string]string{"server": w.ServerDir(), "agent": w.AgentDir()} {
		a, err := w.Addresses(dir)
		if err != nil {
			w.T.Fatal(err)
		}
		p.targets[name] = a.Metrics
		config += fmt.Sprintf("- {job_name: signet-%s, static_configs: [{targets: [%q]}]}\n", name, a.Metrics)
	}
	for name, n := range w.Nodes {
		if w.Readable(name) {
			config += fmt.Sprintf("- {job_name: envoy-%s, metrics_path: /stats/prometheus, static_configs: [{targets: [%q]}]}\n", name, n.ReadOnly())
		}
	}
	file := filepath.Join(w.Dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.T.Fatal(err)
	}
	w.Run("prometheus", program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(w.Dir, "tsdb"),
		"--web.listen-address="+strings.TrimPrefix(p.url, "http://"))
	return p
}

// ask decodes the data of one answer of the query API.
func (p *prometheus) ask(path string, data any) error {
	answer := struct {
		Status string
		Data   any
	}{Data: data}
	if err := json.Unmarshal([]byte(get(p.w.T, p.url+"/api/v1/"+path)), &answer); err != nil || answer.Status != "success" {
		return fmt.Errorf("%s: %q %w", path, answer.Status, err)
	}
	return nil
}

// await waits until a query has one result that ok accepts, and returns it.
func (p *prometheus) await(what, query string, ok func(float64) bool) float64 {
	p.w.T.Helper()
	var value float64
	p.w.Await(what, 30*time.Second, func() error {
		var data struct {
			Result []struct{ Value [2]any }
		}
		if err := p.ask("query?query="+url.QueryEscape(query), &data); err != nil {
			return err
		}
		if len(data.Result) != 1 {
			return fmt.Errorf("%d results of %s", len(data.Result), query)
		}
		text, _ := data.Result[0].Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !ok(v) {
			return fmt.Errorf("%s is %q", query, text)
		}
		value = v
		return nil
	})
	return value
}

// names of all metrics.
func (p *prometheus) names() []string {
	var names []string
	if err := p.ask("label/__name__/values", &names); err != nil {
		p.w.T.Fatal(err)
	}
	return names
}

// alerts that are pending or fire.
func (p *prometheus) alerts() []string {
	var data struct {
		Alerts []struct{ Labels map[string]string }
	}
	if err := p.ask("alerts", &data); err != nil {
		p.w.T.Fatal(err)
	}
	var names []string
	for _, a := range data.Alerts {
		names = append(names, a.Labels["alertname"])
	}
	return names
}
