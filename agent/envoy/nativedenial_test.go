package envoy

import (
	"strings"
	"testing"

	"signet.example/api"
	"signet.example/proxy"
)

func TestAProxysOwnDenialBecomesARecord(t *testing.T) {
	line := `{"msg":"native denial","time":"2026-11-21T10:00:00.123Z","decision_id":"0B6F5C2A-9a53-4c41-8e3f-0123456789ab","class":"unavailable","details":"ext_authz_error","status":503,"method":"GET","host":"orders.internal:8080","path":"/orders","source":"spiffe://td/m/web","peer":"127.0.0.1:1"}`
	d, ok := proxy.ParseDenial(line)
	if !ok {
		t.Fatal("not taken for a denial")
	}
	r := deniedByProxy(d, "spiffe://td/m/orders", "orders")
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
		d, ok := proxy.ParseDenial(line)
		r := deniedByProxy(d, "spiffe://td/m/web", "web")
		if !ok || r.GetCause() != api.Cause_CAUSE_POLICY || len(r.GetRules()) != 1 || r.GetRules()[0].GetName() != want || !strings.HasSuffix(r.GetMessage(), "(http1.codec_error)") {
			t.Errorf("class %q: %v", class, r)
		}
		if out := class == "undeclared"; (r.GetSource() == "spiffe://td/m/web") != out || (r.GetDestination() == "spiffe://td/m/web") == out {
			t.Errorf("class %q: from %q to %q", class, r.GetSource(), r.GetDestination())
		}
	}
}

func TestATunnelThatIsRefusedIsToldFromAnAmbiguousRequest(t *testing.T) {
	d, ok := proxy.ParseDenial(`{"msg":"native denial","decision_id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","class":"ambiguous","details":"x","method":"CONNECT","host":"orders.internal:443"}`)
	r := deniedByProxy(d, "spiffe://td/m/web", "web")
	if !ok || len(r.GetRules()) != 1 || r.GetRules()[0].GetName() != "signet: CONNECT" || !strings.Contains(r.GetMessage(), "call http://") {
		t.Errorf("%v", r)
	}
}

func FuzzNativeDenialLine(f *testing.F) {
	f.Add(`{"msg":"native denial","time":"2026-11-21T10:00:00Z","decision_id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","details":"x"}`)
	f.Fuzz(func(t *testing.T, line string) {
		if d, ok := proxy.ParseDenial(line); ok && deniedByProxy(d, "", "").GetAllowed() {
			t.Error("a denial allows")
		}
	})
}
