package xdstest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"signet.example/test/corpus"
)

// hostHealth is what Envoy's /clusters says of an application.
type hostHealth struct {
	Failed   bool `json:"failed_active_health_check"`
	Excluded bool `json:"excluded_via_immediate_hc_fail"`
}

// health is that of the application of one listener.
func (p *running) health() (h hostHealth) {
	p.t.Helper()
	body, err := p.envoy.Admin("/clusters?format=json&filter=^cds_ingress_")
	if err != nil {
		p.t.Fatal(err)
	}
	var all struct {
		Clusters []struct {
			Hosts []struct {
				Health hostHealth `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(body, &all); err != nil || len(all.Clusters) != 1 || len(all.Clusters[0].Hosts) != 1 {
		p.t.Fatalf("%s, %v", body, err)
	}
	return all.Clusters[0].Hosts[0].Health
}

// A header of an application's answer, which it may have from elsewhere, has Envoy take it for one
// that fails its health check. That is told apart from a check that failed.
func TestAWordInAnAnswerIsToldApartFromAFailedHealthCheck(t *testing.T) {
	in := startInbound(t, strings.Replace(orders, "protocol: http}\n  backends", "protocol: http}\n      healthCheck: {protocol: http, path: /ping, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}\n  backends", 1))
	in.app.said.Store(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ping":
			w.WriteHeader(http.StatusInternalServerError)
		case "/said":
			w.Header().Set("X-Envoy-Immediate-Health-Check-Fail", "true")
		}
	})
	eventually(t, "it fails its check", func() bool { return in.proxy.health() == hostHealth{Failed: true} })
	if r := raw(t, in.addr, "GET /said HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); corpus.Status(r) != http.StatusOK {
		t.Fatal(r)
	}
	eventually(t, "an answer said so", func() bool { return in.proxy.health() == hostHealth{Failed: true, Excluded: true} })
}
