package envoy

import (
	"encoding/json"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"signet.example/proxy"
)

// read is a bootstrap as Envoy reads it.
func read(t *testing.T, text string) *bootstrapv3.Bootstrap {
	t.Helper()
	var any map[string]any
	if err := yaml.Unmarshal([]byte(text), &any); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	doc, err := json.Marshal(any)
	if err != nil {
		t.Fatal(err)
	}
	b := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(doc, b); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return b
}

// An Envoy of one's own differs from a supervised one in what the page says: it waits less for an
// agent that restarts, and its limits are those of an ordinary host.
func TestTheBootstrapOfOnesOwnIsThatOfASupervisedOne(t *testing.T) {
	for _, ref := range []proxy.Ref{proxy.Node("shop", "web"), proxy.Node("shop", "null"), proxy.Node("shop", `a "b": {c}`), proxy.For("shop", "edge", true)} {
		where := proxy.Where{Bind: "2001:db8::7"}
		if !ref.Gateway() {
			where.App, where.Egress, where.EgressMode = "unix:/run/app/{port}.sock", "unix:/run/out/egress.sock", "0600"
		}
		text, err := Own{Ref: ref, Where: where, Admin: "/opt/web/admin.sock", XDSSocket: "/run/signet/xds.sock"}.Bootstrap()
		if err != nil {
			t.Fatal(err)
		}
		shape, err := where.Shape(nil)
		if err != nil {
			t.Fatal(err)
		}
		shape.Suit(ref)
		supervised, err := bootstrap(Proxy{Name: "web", Ref: ref, Shape: shape, Admin: "/opt/web/admin.sock"}, "/run/signet/xds.sock", 0o600, 0)
		if err != nil {
			t.Fatal(err)
		}
		is, want := read(t, text), read(t, string(supervised))
		agent := is.GetDynamicResources().GetAdsConfig().GetGrpcServices()[0].GetEnvoyGrpc()
		if agent.GetRetryPolicy().GetRetryBackOff().GetMaxInterval().AsDuration().Seconds() != 5 {
			t.Errorf("%v", agent)
		}
		agent.RetryPolicy = nil
		for _, b := range []*bootstrapv3.Bootstrap{is, want} {
			if limits := b.GetLayeredRuntime().GetLayers(); len(limits) > 0 {
				for name := range limits[0].GetStaticLayer().GetFields() {
					limits[0].GetStaticLayer().GetFields()[name] = nil
				}
			}
			b.OverloadManager = nil
		}
		if d := cmp.Diff(want, is, protocmp.Transform()); d != "" {
			t.Errorf("%s (- supervised, + one's own):\n%s", ref, d)
		}
	}
}

func TestABootstrapThatNoEnvoyCouldServeByIsRefused(t *testing.T) {
	for want, o := range map[string]Own{
		"there is no application behind a gateway": {Ref: proxy.For("shop", "edge", true), Where: proxy.Where{Bind: "192.0.2.7", App: "127.0.0.1"}},
		"app: 192.0.2.7 is bind, too":              {Ref: proxy.Node("shop", "web"), Where: proxy.Where{Bind: "192.0.2.7", App: "192.0.2.7"}},
		"egress: 192.0.2.7:15001 is not":           {Ref: proxy.Node("shop", "web"), Where: proxy.Where{Bind: "192.0.2.7", Egress: "192.0.2.7:15001"}},
	} {
		if text, err := o.Bootstrap(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s\n%s", err, want, text)
		}
	}
}
