package authzproc

import (
	"log/slog"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/resources"
	"signet.example/api"
	"signet.example/authz"
	"signet.example/test/peertest"
)

// The way of a ban and of the key of token hashes goes over a resource, the state,
// the authz process' configuration, and the deciding server's.
func TestTheAuthzProcessDecidesByAllThatTheAgentWasTold(t *testing.T) {
	id := spiffeid.RequireFromString("spiffe://test.example/shop/web")
	a := &Process{hashKey: []byte("key"), known: map[string]*api.PolicyRevision{}}
	config := a.config(&resources.Snapshot{
		Bans:    map[string]bool{"spiffe://test.example/shop/bad": true},
		Issuers: []*api.JWTIssuer{{Name: "users", Issuer: "https://id.example", Audiences: []string{"web"}, Jwks: []byte(`{"keys":[]}`)}},
	}, nil)
	d := newDecider(slog.New(slog.DiscardHandler), nil)
	if _, err := d.Configure(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	ask := func(source string) *api.Decision {
		t.Helper()
		_, err := d.server.Check(peertest.AskedBy(t.Context(), authz.Caller{Destination: id}), peertest.Present(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Path: "/", Host: "web", Headers: map[string]string{"authorization": "Bearer a.b.c"},
			}},
		}}, source))
		if err != nil {
			t.Fatal(err)
		}
		return <-d.records
	}
	if r := ask("spiffe://test.example/shop/bad"); r.GetAllowed() || len(r.GetRules()) != 1 || r.GetRules()[0].GetName() != "signet: banned identity" {
		t.Errorf("%v", r)
	}
	if r := ask("spiffe://test.example/shop/api"); r.GetAllowed() || r.GetToken().GetError() == "" || r.GetToken().GetKeyedHash() == "" {
		t.Errorf("%v", r)
	}
}
