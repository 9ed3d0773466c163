package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// What App Mesh's users ask Envoy at port 9901, of a real one.
func TestWhatAsksForEnvoysAdminPortIsAnsweredAndCanDoNothing(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "back"}, Readable: []string{"front", "back"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "back"),
			meshtest.VirtualNode("back", meshtest.Strict("test.example", "back")), meshtest.ServiceOfNode("back", "back")),
	})
	back := "http://" + meshtest.HostOf("back") + "/"
	w.AwaitRoute("front", back)
	base := func(node string) string { return "http://" + w.Nodes[node].ReadOnly() }

	// curl -s http://localhost:9901/server_info | grep state | grep -q LIVE
	if text := get(t, base("back")+"/server_info"); !regexp.MustCompile(`(?m)^.*state.*LIVE.*$`).MatchString(text) || !strings.Contains(text, "mesh/test/virtualNode/back") {
		t.Errorf("/server_info is %s", text)
	}
	if text := get(t, base("back")+"/ready"); text != "LIVE\n" {
		t.Errorf("/ready is %q", text)
	}
	for range 10 {
		w.Get("front", back)
	}
	value := func(node, series string) (n float64) {
		page := get(t, base(node)+"/stats/prometheus")
		if all := regexp.MustCompile(`(?m)^envoy_`).FindAllString(page, -1); len(all) != 59 {
			t.Errorf("%d series of %s, want 59", len(all), node)
		}
		_, rest, _ := strings.Cut(page, "\n"+series+" ")
		_, _ = fmt.Sscan(rest, &n) // 0 where it is not there
		return n
	}
	for _, c := range []struct {
		node, series string
		least        float64
	}{
		{"front", `envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="egress"}`, 11},
		{"front", `envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="egress",le="+Inf"}`, 11},
		{"front", `envoy_cluster_membership_healthy{envoy_cluster_name="egress"}`, 1},
		{"back", `envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="ingress"}`, 11},
		{"back", `envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="ingress"}`, 1},
		{"back", `envoy_cluster_membership_total{envoy_cluster_name="ingress"}`, 1},
		{"back", `envoy_listener_ssl_handshake`, 1},
		{"back", `envoy_server_live`, 1},
		{"back", `envoy_server_memory_allocated`, 1 << 20},
	} {
		w.Await(c.series, 15*time.Second, func() error { // Envoy's histograms are merged every 5 s
			if n := value(c.node, c.series); n < c.least {
				return fmt.Errorf("it is %v at %s, want %v at least", n, c.node, c.least)
			}
			return nil
		})
	}
	for _, path := range []string{"/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/config_dump", "/certs"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base("back")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // the test's context bounds it
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
	}
	if text := get(t, base("back")+"/ready"); text != "LIVE\n" {
		t.Errorf("after that /ready is %q", text)
	}
}
