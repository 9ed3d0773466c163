package authz_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAPolicySeesTheFieldsThatThePageLists: docs/POLICY.md, "Input".
func TestAPolicySeesTheFieldsThatThePageLists(t *testing.T) {
	f := newFixtureWith(t, "package signet.authz\nallow contains \"all\"\nheaders[\"x-input\"] := json.marshal(input)", withJWT)
	see := func(source string, headers ...string) map[string]any {
		t.Helper()
		q := f.question("GET", "/a%20b/c?q=1&q=2", source, headers...)
		q.Attributes.Destination.Address = listenerAt(8080)
		resp, _ := f.ask(t, q)
		var in map[string]any
		for _, h := range resp.GetOkResponse().GetHeaders() {
			if err := json.Unmarshal([]byte(h.GetHeader().GetValue()), &in); err != nil {
				t.Fatal(err)
			}
		}
		return in
	}
	in := see(web, "x-role: a, b", "X-Role: c", "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json()))
	claims, _ := in["jwt"].(map[string]any)
	if claims["sub"] != "alice" {
		t.Errorf("jwt is %v", in["jwt"])
	}
	delete(in, "jwt")
	request, _ := in["request"].(map[string]any)
	for _, name := range []string{"headers", "header_lines"} {
		of, _ := request[name].(map[string]any)
		delete(of, "authorization")
		delete(of, "x-forwarded-client-cert")
	}
	list := func(s ...any) []any { return s }
	want := map[string]any{
		"request": map[string]any{
			"method": "GET", "protocol": "HTTP/1.1", "path": "/a%20b/c", "segments": list("a b", "c"), "query": map[string]any{"q": list("1", "2")},
			"host": "orders.shop", "port": 8080.0, "headers": map[string]any{"x-role": list("a", "b", "c")}, "header_lines": map[string]any{"x-role": list("a, b", "c")},
		},
		"source":      map[string]any{"spiffe_id": web, "trust_domain": "prod.example", "path": "/shop/web", "mesh": "shop", "virtual_node": "web"},
		"destination": map[string]any{"spiffe_id": orders.String(), "trust_domain": "prod.example", "path": "/shop/orders", "mesh": "shop", "virtual_node": "orders"},
		"time":        "2026-11-21T12:00:00Z",
	}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Errorf("input (-want +got):\n%s", diff)
	}
	plaintext := see("")
	if source, _ := plaintext["source"].(map[string]any); len(source) > 0 || plaintext["jwt"] != nil {
		t.Errorf("of a plaintext caller a policy sees source %v, jwt %v", plaintext["source"], plaintext["jwt"])
	}
	other := see("spiffe://prod.example/a/b/c")
	if source, _ := other["source"].(map[string]any); source["path"] != "/a/b/c" || source["mesh"] != nil || source["virtual_node"] != nil {
		t.Errorf("an identity that is not of a virtual node: %v", source)
	}
}
