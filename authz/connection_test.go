package authz_test

import (
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"

	"signet.example/authz"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/test/peertest"
)

// connection is what Envoy's network filter asks of one whose caller has this identity,
// "" for none: without a request, and with the leaf alone.
func connection(port uint32, source string) *authv3.CheckRequest {
	at := listenerAt(port)
	q := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{}, Destination: &authv3.AttributeContext_Peer{Address: at, Principal: "spiffe://prod.example/shop/lies"},
	}}
	if source != "" {
		q.Attributes.Source.Principal, q.Attributes.Source.Certificate = source, peertest.Encode(peertest.SVID(source))
	}
	return q
}

const connectionRego = `package signet.authz.orders

allow contains "web speaks to the store" if {
	input.source.spiffe_id == "spiffe://prod.example/shop/web"
	input.connection.protocol == "tcp"
	input.connection.port == 6379
}

allow contains "anybody reads" if input.request.method == "GET"

deny contains "nobody is called so" if input.request.host == ""

headers["x-user"] := "u"
`

func TestAConnectionIsDecidedByItsTwoEndsAndItsPort(t *testing.T) {
	f := newFixtureWith(t, connectionRego, func(_ *authz.Options, c *authz.Config) {
		c.Newest = c.Policies[0].Revision().ID
		c.Bans = map[string]bool{"spiffe://prod.example/shop/banned": true}
	})
	ask := func(q *authv3.CheckRequest) (string, authz.Record) {
		t.Helper()
		resp, err := f.Check(asked(t.Context()), q)
		if err != nil {
			t.Fatal(err)
		}
		r := f.last()
		if (resp.GetStatus().GetCode() == 0) != r.Allowed {
			t.Errorf("answer %v, record %+v", resp, r)
		}
		return resp.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue(), r
	}
	id, r := ask(connection(6379, web))
	if !r.Allowed || r.Source != web || r.Destination != orders.String() || r.Method != "tcp" || r.Host != "port 6379" {
		t.Errorf("%+v", r)
	}
	if id != r.ID {
		t.Errorf("the proxy is told %q of decision %s", id, r.ID)
	}
	for what, q := range map[string]*authv3.CheckRequest{
		"another port":   connection(6380, web),
		"another caller": connection(6379, other),
		"plaintext":      connection(6379, ""),
		"a ban":          connection(6379, "spiffe://prod.example/shop/banned"),
	} {
		if id, r := ask(q); r.Allowed || r.Cause != authz.CausePolicy || id != r.ID {
			t.Errorf("%s: %s, %+v", what, id, r)
		}
	}
	if _, r := ask(connection(6379, "spiffe://prod.example/shop/banned")); !strings.Contains(r.Message, "banned") {
		t.Errorf("%+v", r)
	}
	if _, r := ask(connection(6379, "")); r.Source != "" {
		t.Errorf("a caller in plaintext is %q", r.Source)
	}
	foreign := metadata.NewIncomingContext(asked(t.Context()), metadata.Pairs("x-signet-callers", "foreign"))
	if _, err := f.Check(foreign, connection(6379, web)); err != nil || f.last().Source != "" || f.last().Allowed {
		t.Errorf("who comes by an authority of a file has an identity: %+v, %v", f.last(), err)
	}
	// The listener's configuration knows its port. The connection's own end may be what somebody wrote.
	for said, want := range map[string]bool{"6379": true, "6380": false, "": false, "63790000": false, "6379 6379": false} {
		ctx := asked(metadata.NewIncomingContext(t.Context(), metadata.MD{proxy.PortKey: strings.Split(said, " ")}))
		for _, port := range []uint32{6379, 6380} {
			if _, err := f.Check(ctx, connection(port, web)); err != nil || f.last().Allowed != want || want && f.last().Host != "port 6379" {
				t.Errorf("a listener of %q, a connection to %d: %+v, %v", said, port, f.last(), err)
			}
		}
	}
	q := connection(6379, web)
	q.Attributes.Source.Certificate = peertest.Encode(peertest.SVID(other))
	if _, r := ask(q); r.Allowed || r.Rules[0].Name != "signet: peer certificate" {
		t.Errorf("another's certificate: %+v", r)
	}
}

// Its listener bears no stamp, so that a new policy does not end its connections.
func TestAConnectionIsJudgedByTheNewestRevision(t *testing.T) {
	old, err := policy.Compile(policy.NewRevision("file:///repo", "old", []policy.Module{{Path: "a.rego", Rego: "package signet.authz\nallow contains \"all\" if true"}}, policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	f := newFixtureWith(t, "package signet.authz\nallow contains \"none\" if false", func(_ *authz.Options, c *authz.Config) {
		c.Newest, c.Policies = c.Policies[0].Revision().ID, append(c.Policies, old)
	})
	ask := func() authz.Record {
		t.Helper()
		if _, err := f.Check(asked(t.Context()), connection(6379, web)); err != nil {
			t.Fatal(err)
		}
		return f.last()
	}
	if r := ask(); r.Allowed || r.Cause != authz.CausePolicy {
		t.Errorf("%+v", r)
	}
	f.conf.Newest = old.Revision().ID
	f.Configure(f.conf)
	if r := ask(); !r.Allowed {
		t.Errorf("%+v", r)
	}
	for _, none := range []string{"", "gone"} {
		f.conf.Newest = none
		f.Configure(f.conf)
		if r := ask(); r.Allowed || r.Cause != authz.CauseUnavailable {
			t.Errorf("newest %q: %+v", none, r)
		}
	}
}
