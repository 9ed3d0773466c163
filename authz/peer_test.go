package authz_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"signet.example/authz"
	"signet.example/test/peertest"
)

const other = "spiffe://prod.example/shop/other"

// A name that the proxy states is worth what it shows with it.
func TestACallerIsWhoItsCertificateSaysAndNobodyByNameAlone(t *testing.T) {
	f := newFixture(t)
	leaf, theirs := peertest.Encode(peertest.SVID(web)), peertest.Encode(peertest.SVID(other))
	both := peertest.Encode(peertest.SVID(web), peertest.SVID(other))
	for name, shown := range map[string]struct{ name, leaf, chain string }{
		"a name alone":              {web, "", ""},
		"no chain":                  {web, leaf, ""},
		"no leaf":                   {web, "", leaf},
		"another's name":            {web, theirs, theirs},
		"another's chain":           {web, leaf, theirs},
		"a leaf among the signers":  {web, leaf, both},
		"no name":                   {"", leaf, leaf},
		"not a certificate":         {web, "x", "x"},
		"an escape that is none":    {web, "%zz", "%zz"},
		"more than the leaf":        {web, both, both},
		"longer than any":           {web, leaf, leaf + strings.Repeat("%0A", 64<<10)},
		"a chain of nine":           {web, leaf, strings.Repeat(leaf, 9)},
		"something behind the leaf": {web, leaf + "x", leaf},
	} {
		q := peertest.Show(f.question("GET", "/orders/1", ""), shown.name, shown.leaf, shown.chain)
		if _, r := f.ask(t, q); r.Allowed || r.Cause != authz.CausePolicy || len(r.Rules) != 1 || r.Rules[0].Name != "signet: peer certificate" || r.Source != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for range 2 { // parsed, and remembered
		if _, r := f.ask(t, f.question("GET", "/orders/1", web)); !r.Allowed || r.Source != web {
			t.Errorf("%+v", r)
		}
	}
}

// Whatever certificate is shown where authorities of a file vouch for callers, and though
// the bundle would: what a proxy says there takes an identity away.
func TestACallerThatAFileVouchesForIsNobody(t *testing.T) {
	f := newFixtureWith(t, `package signet.authz.orders

allow contains "nobody in particular" if {
	not input.source.spiffe_id
	input.request.path == "/open"
}

allow contains "web" if input.source.spiffe_id == "`+web+`"
`)
	leaf := peertest.Encode(peertest.SVID(web))
	foreign := metadata.NewIncomingContext(asked(t.Context()), metadata.Pairs("x-signet-callers", "foreign"))
	for name, shown := range map[string]struct{ name, leaf, chain string }{
		"a DNS name":     {"front.partner.example", "", ""},
		"a subject":      {"CN=front,O=Partner", "", ""},
		"a name of ours": {web, "", ""},
		"an SVID":        {web, leaf, leaf},
	} {
		for path, allowed := range map[string]bool{"/open": true, "/orders/1": false} {
			q := peertest.Show(f.question("GET", path, ""), shown.name, shown.leaf, shown.chain)
			resp, err := f.Check(foreign, q)
			if r := f.last(); err != nil || (resp.GetOkResponse() != nil) != allowed || r.Source != "" {
				t.Errorf("%s at %s: %v, %+v", name, path, resp, r)
			}
		}
	}
}

func TestAPolicySeesTheHeaderOfTheCallersCertificateAsTheApplicationDoes(t *testing.T) {
	f := newFixtureWith(t, `package signet.authz.orders

allow contains "as the application sees it" if {
	input.request.headers["x-forwarded-client-cert"] == ["By=spiffe://test.example/callee;Hash=00;URI=spiffe://prod.example/shop/web"]
}
`)
	if _, r := f.ask(t, f.question("GET", "/orders/1", web)); !r.Allowed {
		t.Errorf("%+v", r)
	}
}

func TestManyCallersAreRememberedWithinBounds(t *testing.T) {
	if n := authz.PeersRemembered(5 * authz.PeersKept); n > 2*authz.PeersKept || n < authz.PeersKept {
		t.Errorf("%d callers are remembered", n)
	}
}

func BenchmarkCallerSeenBefore(b *testing.B) {
	f := newFixture(b)
	q := f.question("GET", "/orders/1", web)
	for b.Loop() {
		if _, err := authz.Presented(f.Server, q); err != nil {
			b.Fatal(err)
		}
	}
}
