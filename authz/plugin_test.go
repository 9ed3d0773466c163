package authz_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/test/peertest"
)

// shown hands what package envoy.authz sees to the test, in headers of the request.
const shown = `package envoy.authz

allow := {"allowed": true, "headers": {
	"x-attributes": json.marshal(input.attributes),
	"x-parsed-path": json.marshal(input.parsed_path),
	"x-parsed-query": json.marshal(input.parsed_query),
	"x-version": json.marshal(input.version),
}}
`

// pluginInput is the input of opa-envoy-plugin as its documentation has it
// (https://www.openpolicyagent.org/docs/envoy/primer#input-document): the JSON
// form of Envoy's CheckRequest, the path split at slashes, the query as lists,
// and the version. What Signet does not offer is taken out.
func pluginInput(t *testing.T, q *authv3.CheckRequest) map[string]any {
	t.Helper()
	b, err := protojson.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]any{}
	if err := json.Unmarshal(b, &in); err != nil {
		t.Fatal(err)
	}
	attributes := in["attributes"].(map[string]any)
	for _, name := range []string{"contextExtensions", "metadataContext"} {
		delete(attributes, name)
	}
	for _, peer := range []string{"source", "destination"} {
		delete(attributes[peer].(map[string]any), "address")
	}
	http := attributes["request"].(map[string]any)["http"].(map[string]any)
	for _, name := range []string{"id", "size", "body"} {
		delete(http, name)
	}
	u, err := url.Parse(q.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		t.Fatal(err)
	}
	in["parsed_path"] = strings.Split(strings.TrimLeft(u.Path, "/"), "/")
	in["parsed_query"] = u.Query()
	in["version"] = map[string]string{"ext_authz": "v3", "encoding": "protojson"}
	return plain(t, in)
}

// plain is v as encoding/json reads it back.
func plain(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// asPlugin is the question with its headers in the map that the plugin reads:
// of several lines Envoy makes one, with commas.
func asPlugin(q *authv3.CheckRequest) *authv3.CheckRequest {
	p := proto.CloneOf(q)
	h := p.GetAttributes().GetRequest().GetHttp()
	h.Headers = map[string]string{}
	for _, hv := range h.GetHeaderMap().GetHeaders() {
		value := string(hv.GetRawValue())
		if before, ok := h.Headers[hv.GetKey()]; ok {
			value = before + "," + value
		}
		h.Headers[hv.GetKey()] = value
	}
	h.HeaderMap = nil
	return p
}

// generator makes requests as Envoy may ask about them.
type generator struct{ *rand.Rand }

func (g generator) of(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) word() string {
	return g.of("orders", "a", "B", "%20", "x-y_z~", "caf%C3%A9", "a..b", ".hidden", "a.b", "+", "a+b", "%2B", "=", "&x", "@", ":", "!$'()*,", "%22", "1", "", ";v=1", "%E2%82%AC", "%", "%2e", "//", "admin")
}

func (g generator) path() string {
	var b strings.Builder
	for range g.IntN(4) {
		b.WriteString("/" + g.word())
	}
	if b.Len() == 0 || g.IntN(5) == 0 {
		b.WriteString("/")
	}
	switch g.IntN(4) {
	case 0:
		return b.String()
	case 1:
		return b.String() + "?"
	}
	b.WriteString("?")
	for i := range g.IntN(5) {
		if i > 0 {
			b.WriteString(g.of("&", "&", "&", "&&", ";"))
		}
		b.WriteString(g.word() + g.of("=", "=", "", "==", "=?") + g.word())
	}
	return b.String()
}

func (g generator) question(revision string) *authv3.CheckRequest {
	source := g.of("", web, "spiffe://prod.example/shop/web/with/more")
	q := question(revision, g.of("GET", "POST", "DELETE", "PROPFIND", "get"), g.path(), "")
	a := q.GetAttributes()
	a.Destination = &authv3.AttributeContext_Peer{Principal: orders.String(), Address: address(8080)}
	a.MetadataContext = &corev3.Metadata{}
	if g.IntN(4) > 0 {
		a.Request.Time = timestamppb.New(noon.Add(time.Duration(g.Int64N(1e12)) / time.Duration([]int64{1, 1000, 1e6, 1e9}[g.IntN(4)]) * time.Duration([]int64{1, 1000, 1e6, 1e9}[g.IntN(4)])))
	}
	h := a.GetRequest().GetHttp()
	h.Id, h.Size = "13519049518330544501", -1
	h.Host = g.of("orders", "Orders.shop:8080", "ORDERS.", "10.0.0.1:80", "[::1]:8080", "[2001:db8::1]", "orders.shop.")
	h.Scheme, h.Protocol = g.of("http", "https", ""), g.of("HTTP/1.1", "HTTP/2", "HTTP/1.0")
	h.HeaderMap.Headers = nil
	add := func(name, value string) {
		h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	for name, value := range map[string]string{":method": h.GetMethod(), ":path": h.GetPath(), ":authority": h.GetHost(), ":scheme": h.GetScheme()} {
		if value != "" {
			add(name, value)
		}
	}
	for range g.IntN(8) {
		add(g.of("x-role", "accept", "cookie", "x-role", "date", "user-agent", "x.y", "x-empty", "content-type"),
			g.of("", "user", "user,admin", "user, admin", `"a,b"`, "a=b; c=d", "Sat, 28 Nov 2026 12:00:00 GMT", "café", `\`, "\t", "<&>", strings.Repeat("x", 50)))
	}
	peertest.Present(q, source)
	if a.Source == nil {
		a.Source = &authv3.AttributeContext_Peer{}
	}
	a.Source.Address = address(g.Uint32N(60000) + 1)
	return q
}

// withoutChain is the question without the caller's certificate, which Signet does
// not offer, and with its header as the application gets it: the chain is for us alone.
func withoutChain(q *authv3.CheckRequest) *authv3.CheckRequest {
	q.GetAttributes().GetSource().Certificate = ""
	for _, h := range q.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if h.GetKey() == peertest.Header {
			h.RawValue = regexp.MustCompile(`;Chain="[^"]*"`).ReplaceAll(h.GetRawValue(), nil)
		}
	}
	return q
}

func address(port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.71.2", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func TestPackageEnvoyAuthzSeesWhatOPAEnvoyPluginGives(t *testing.T) {
	n := 2000
	if os.Getenv("SOAK") == "1" {
		n = 50000
	}
	seed := uint64(time.Now().UnixNano())
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	f := newFixtureWith(t, shown)
	refused := 0
	for i := range n {
		q := g.question(f.rev.ID)
		resp, r := f.ask(t, q)
		if !r.Allowed {
			if len(r.Rules) != 1 || !strings.HasPrefix(r.Rules[0].Name, "signet: ambiguous") {
				t.Fatalf("seed %d, request %d: %+v", seed, i, r)
			}
			refused++ // no policy sees it
			continue
		}
		got := map[string]any{}
		for name, value := range answerHeaders(resp.GetOkResponse().GetHeaders()) {
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				t.Fatal(err)
			}
			got[strings.ReplaceAll(strings.TrimPrefix(name, "x-"), "-", "_")] = v
		}
		if diff := cmp.Diff(pluginInput(t, asPlugin(withoutChain(q))), got); diff != "" {
			t.Fatalf("seed %d, request %d, %s (-plugin +ours):\n%s", seed, i, q.GetAttributes().GetRequest().GetHttp().GetPath(), diff)
		}
	}
	if refused > n*3/4 {
		t.Errorf("%d of %d requests were refused before: the rest proves little", refused, n)
	}
	t.Logf("%d requests equal, %d refused as ambiguous", n-refused, refused)
}
