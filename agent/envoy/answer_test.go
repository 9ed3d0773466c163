package envoy

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// of is the proxy of a virtual node.
func of(node string) *envoy {
	return &envoy{proxy: Proxy{Name: node, Ref: proxy.Node("m", node)}, config: Config{Records: inTD{}}}
}

type inTD struct{}

func (inTD) Destination(ref proxy.Ref) string { return "spiffe://td/" + ref.Mesh + "/" + ref.Name }
func (inTD) Record(*api.Decision)             {}

func TestAProxysOwnDenialBecomesARecord(t *testing.T) {
	line := `{"msg":"native denial","time":"2026-11-21T10:00:00.123Z","decision_id":"0B6F5C2A-9a53-4c41-8e3f-0123456789ab","class":"unavailable","details":"ext_authz_error","status":503,"method":"GET","host":"orders.internal:8080","path":"/orders","source":"spiffe://td/m/web","peer":"127.0.0.1:1"}`
	d, ok := answers.ParseLine(line)
	if !ok {
		t.Fatal("not taken for a denial")
	}
	r := of("orders").answered(d)
	if r.GetId() != "0b6f5c2a9a534c418e3f0123456789ab" || r.GetCause() != api.Cause_CAUSE_UNAVAILABLE || r.GetAllowed() ||
		r.GetSource() != "spiffe://td/m/web" || r.GetDestination() != "spiffe://td/m/orders" || r.GetPath() != "/orders" || r.GetHost() != "orders.internal:8080" || r.GetTime().AsTime().Year() != 2026 {
		t.Errorf("record: %v", r)
	}
}

func TestARefusalIsExplainedByItsClass(t *testing.T) {
	for class, want := range map[string]string{
		"ambiguous": "signet: ambiguous request", "malformed": "signet: malformed request", "upgrade": "signet: upgrade", "undeclared": "signet: undeclared host",
		"": "signet: ambiguous request", // what a proxy wrote before there were classes
	} {
		line := `{"msg":"native denial","decision_id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","class":"` + class + `","details":"http1.codec_error\u202e"}`
		d, ok := answers.ParseLine(line)
		r := of("web").answered(d)
		if !ok || r.GetCause() != api.Cause_CAUSE_POLICY || len(r.GetRules()) != 1 || r.GetRules()[0].GetName() != want || !strings.HasSuffix(r.GetMessage(), "(http1.codec_error\ufffd)") {
			t.Errorf("class %q: %v", class, r)
		}
		if out := class == "undeclared"; (r.GetSource() == "spiffe://td/m/web") != out || (r.GetDestination() == "spiffe://td/m/web") == out {
			t.Errorf("class %q: from %q to %q", class, r.GetSource(), r.GetDestination())
		}
	}
}

func TestATunnelThatIsRefusedIsToldFromAnAmbiguousRequest(t *testing.T) {
	d, ok := answers.ParseLine(`{"msg":"native denial","decision_id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","class":"ambiguous","details":"x","status":400,"method":"CONNECT","host":"orders.internal:443"}`)
	r := of("web").answered(d)
	if !ok || len(r.GetRules()) != 1 || r.GetRules()[0].GetName() != "signet: CONNECT" || r.GetKind() != "tunnel" {
		t.Errorf("%v", r)
	}
}

func TestWhoseCertificateIsRefusedHasNoName(t *testing.T) {
	for _, why := range []string{`"caller_tls":"TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end"`, `"closed":"rbac_access_denied_matched_policy[not one SVID]"`} {
		l, ok := answers.ParseLine(`{"msg":"native denial","id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","way":"in","method":"tcp","host":"port 8080",` + why + `,"source":"spiffe://td/m/web","peer":"10.0.0.1:4711"}`)
		r := of("orders").answered(l)
		if !ok || r.GetSource() != "" || r.GetPeer() != "10.0.0.1:4711" || r.GetDestination() != "spiffe://td/m/orders" || r.GetCause() != api.Cause_CAUSE_UNSPECIFIED || r.GetKind() == "other" {
			t.Errorf("%s: %v", why, r)
		}
	}
}

func TestWhatCouldNotBeCarriedNamesTheCallee(t *testing.T) {
	l, ok := answers.ParseLine(`{"msg":"native denial","time":"2026-11-21T10:00:00Z","id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","decision_id":"1b6f5c2a-9a53-4c41-8e3f-0123456789ab","way":"out","details":"no_healthy_upstream","flags":"UH","status":503,"method":"GET","host":"orders.internal:8080","path":"/orders","cluster":"cds_egress_m_orders_v2_http_8080_via_orders.internal"}`)
	r := of("web").answered(l)
	if !ok || r.GetKind() != "no-endpoint" || r.GetSource() != "spiffe://td/m/web" || r.GetDestination() != "spiffe://td/m/orders_v2" || r.GetStatus() != 503 ||
		r.GetId() != "1b6f5c2a9a534c418e3f0123456789ab" || len(r.GetRules()) != 0 || r.GetMessage() != "no proxy of the callee is there to be called, or none is healthy (no_healthy_upstream)" {
		t.Errorf("%v", r)
	}
}

func FuzzNativeDenialLine(f *testing.F) {
	f.Add(`{"msg":"native denial","time":"2026-11-21T10:00:00Z","decision_id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","details":"x"}`)
	f.Fuzz(func(t *testing.T, line string) {
		if d, ok := answers.ParseLine(line); ok && of("web").answered(d).GetAllowed() {
			t.Error("a denial allows")
		}
	})
}

func TestAnswersOfAProxyAreCountedByKindUntilItIsGone(t *testing.T) {
	registry := prometheus.NewRegistry()
	e := of("web")
	e.config.Metrics, e.config.Log = NewMetrics(registry), slog.New(slog.DiscardHandler)
	line := func(details string) string {
		return `{"msg":"native denial","decision_id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","way":"out","details":"` + details + `"}`
	}
	for _, details := range []string{"response_timeout", "response_timeout", "of a caller's making"} {
		e.line(t.Context(), line(details))
	}
	counted := func() map[string]float64 {
		got := map[string]float64{}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "signet_agent_proxy_answers_total" {
					got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		return got
	}
	if got := counted(); len(got) != 2 || got["timeout"] != 2 || got["other"] != 1 {
		t.Errorf("%v", got)
	}
	if e.config.Metrics.gone("web"); len(counted()) > 0 {
		t.Error("one that is not run any more is counted still")
	}
}
