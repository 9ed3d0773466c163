package authz_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"

	"signet.example/authz"
	"signet.example/authz/jwt"
	"signet.example/proxy"
	"signet.example/test/alb"
)

const albRego = `package signet.authz.orders

allow contains "users of the load balancer" if {
	input.jwt.email == "ana@shop.example"
	input.jwt.iss == "` + alb.Issuer + `"
	input.jwt.signer == "` + alb.ARN + `"
}

allow contains "anybody reads" if input.request.method == "GET"

headers["x-user"] := input.jwt.sub
`

// albIssuer trusts keys.
func albIssuer(t *testing.T, keys ...alb.Key) authz.Issuer {
	t.Helper()
	is, err := jwt.ALBSpec{Issuer: alb.Issuer, Clients: []string{alb.Client}, Signers: []string{alb.ARN}, Ingress: []string{"alb"}, Callers: []string{web}}.Build("front")
	must(err)
	is.JWKS = []byte(`{"keys":[]}`)
	for _, k := range keys {
		is.JWKS, err = jwt.WithALBKey(is.JWKS, k.ID, k.PEM(t))
		must(err)
	}
	return is
}

// behind asks as the proxy does of callers at an ingress.
func (f *fixture) behind(ctx context.Context, ingress string, q *authv3.CheckRequest) (*authv3.CheckResponse, authz.Record) {
	resp, err := f.Check(askedOf(ctx, ingress), q)
	must(err)
	return resp, f.last()
}

func header(token string) string { return "x-amzn-oidc-data: " + token }

func signed(t *testing.T, k alb.Key, sub string) string {
	t.Helper()
	return k.Sign(t, k.Header(noon.Add(time.Minute)), alb.Claims(sub, noon.Add(time.Minute)))
}

func TestALoadBalancersTokenIsItsUsersWhereItComesFrom(t *testing.T) {
	k := alb.NewKey(t)
	f := newFixtureWith(t, albRego, func(_ *authz.Options, c *authz.Config) { c.Issuers = []authz.Issuer{albIssuer(t, k)} })
	ana := signed(t, k, "ana")
	for range 2 { // the second from memory
		resp, r := f.behind(t.Context(), "alb", f.question("POST", "/orders", "", header(ana)))
		if !r.Allowed || r.Token == nil || r.Token.Subject != "ana" || r.Token.Issuer != alb.Issuer || resp.GetOkResponse().GetHeaders()[0].GetHeader().GetValue() != "ana" {
			t.Errorf("%+v", r)
		}
		if _, r = f.ask(t, f.question("POST", "/orders", web, header(ana))); !r.Allowed {
			t.Errorf("passed on by one who may: %+v", r)
		}
		// To others it is a header like any: it was read off somewhere, and gives nothing.
		for _, q := range []func() authz.Record{
			func() authz.Record {
				_, r := f.behind(t.Context(), "legacy", f.question("POST", "/orders", "", header(ana)))
				return r
			},
			func() authz.Record {
				_, r := f.ask(t, f.question("POST", "/orders", "", header(ana)))
				return r
			},
			func() authz.Record {
				_, r := f.ask(t, f.question("POST", "/orders", "spiffe://prod.example/shop/batch", header(ana)))
				return r
			},
		} {
			if r := q(); r.Allowed || r.Token != nil || r.Cause != authz.CausePolicy {
				t.Errorf("of another caller: %+v", r)
			}
		}
	}
	// What is not signed is not read, and bearer tokens are nobody's here.
	for _, h := range []string{"x-amzn-oidc-identity: ana", "x-amzn-oidc-accesstoken: " + ana, "authorization: Bearer " + ana} {
		if _, r := f.behind(t.Context(), "alb", f.question("POST", "/orders", "", h)); r.Allowed || r.Token != nil {
			t.Errorf("%s: %+v", h[:24], r)
		}
	}
	for what, headers := range map[string][]string{
		"expired":       {header(k.Sign(t, k.Header(noon.Add(-2*time.Minute)), alb.Claims("ana", noon)))},
		"no token":      {header("ana")},
		"two of them":   {header(ana), header(ana)},
		"of a neighbor": {header(strings.Replace(ana, ".", ".e", 1))},
	} {
		resp, r := f.behind(t.Context(), "alb", f.question("GET", "/orders", "", headers...))
		if r.Allowed || r.Cause != authz.CausePolicy || resp.GetDeniedResponse().GetStatus().GetCode() != 401 || !strings.Contains(r.Message, "the load balancer's token") {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

func TestARequestWithTwoUsersIsRefused(t *testing.T) {
	k := alb.NewKey(t)
	f := newFixtureWith(t, albRego, func(_ *authz.Options, c *authz.Config) { c.Issuers = append(issuers(), albIssuer(t, k)) })
	bearer := "authorization: Bearer " + sign(keys()["rsa"], rs256, good().json())
	if _, r := f.behind(t.Context(), "alb", f.question("GET", "/orders", "", bearer, header(signed(t, k, "ana")))); r.Allowed || !strings.Contains(r.Message, "policies see one") {
		t.Errorf("%+v", r)
	}
	for _, h := range []string{bearer, header(signed(t, k, "ana"))} {
		if _, r := f.behind(t.Context(), "alb", f.question("GET", "/orders", "", h)); !r.Allowed {
			t.Errorf("one of them: %+v", r)
		}
	}
	// From whom none is taken, the header is not another user.
	if _, r := f.ask(t, f.question("GET", "/orders", "", bearer, header(signed(t, k, "ana")))); !r.Allowed {
		t.Errorf("%+v", r)
	}
}

func TestTheFirstTokenOfANewKeyWaitsForIt(t *testing.T) {
	k := alb.NewKey(t)
	var f *fixture
	var mu sync.Mutex
	var wanted []jwt.UnknownKeyError
	come := false
	f = newFixtureWith(t, albRego, func(o *authz.Options, c *authz.Config) {
		c.Issuers = []authz.Issuer{albIssuer(t)}
		o.WantKey = func(key jwt.UnknownKeyError) {
			mu.Lock()
			defer mu.Unlock()
			if wanted = append(wanted, key); come {
				next := f.conf
				next.Issuers = []authz.Issuer{albIssuer(t, k)}
				f.Configure(next)
			}
		}
	})
	// Callers who may pass a token on have nothing fetched.
	if _, r := f.ask(t, f.question("POST", "/orders", web, header(signed(t, k, "ana")))); r.Cause != authz.CauseUnavailable || len(wanted) > 0 {
		t.Errorf("%+v, and %v was asked for", r, wanted)
	}
	resp, r := f.behind(t.Context(), "alb", f.question("POST", "/orders", "", header(signed(t, k, "ana"))))
	if r.Allowed || r.Cause != authz.CauseUnavailable || resp.GetDeniedResponse().GetStatus().GetCode() != 503 || !strings.Contains(r.Message, "not here yet") || r.Rules[0].Name != "signet: token key not here" || r.Token.Subject != "" {
		t.Errorf("before it is there: %+v", r)
	}
	if len(wanted) != 1 || wanted[0] != (jwt.UnknownKeyError{Issuer: "alb/front", KeyID: k.ID}) {
		t.Errorf("asked for %v", wanted)
	}
	k = alb.NewKey(t)
	mu.Lock()
	come = true
	mu.Unlock()
	if _, r := f.behind(t.Context(), "alb", f.question("POST", "/orders", "", header(signed(t, k, "ana")))); !r.Allowed {
		t.Errorf("while it comes: %+v", r)
	}
}

// Whoever reaches the load balancer may make up ids.
func TestMadeUpKeysAreNotAskedForWithoutEnd(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	f := newFixtureWith(t, albRego, func(o *authz.Options, c *authz.Config) {
		c.Issuers = []authz.Issuer{albIssuer(t)}
		o.WantKey = func(jwt.UnknownKeyError) {
			mu.Lock()
			defer mu.Unlock()
			asked++
		}
	})
	var all sync.WaitGroup
	ended, cancel := context.WithCancel(t.Context())
	cancel() // none waits here
	for range 200 {
		all.Go(func() {
			k := alb.NewKey(t)
			resp, err := f.Check(askedOf(ended, "alb"), f.question("POST", "/orders", "", header(signed(t, k, "ana"))))
			if err != nil || resp.GetDeniedResponse() == nil {
				t.Errorf("%v %v", resp, err)
			}
		})
	}
	all.Wait()
	if asked == 0 || asked > 64 {
		t.Errorf("%d were asked for", asked)
	}
}

// askedOf is asked about callers at an ingress.
func askedOf(ctx context.Context, ingress string) context.Context {
	return asked(metadata.NewIncomingContext(ctx, metadata.Pairs(proxy.CallersKey, proxy.IngressCallers(ingress))))
}

// Two issuers of one load balancer, as two teams have it, differ in whom they take its token from.
func TestATokenIsRememberedForWhoBringsIt(t *testing.T) {
	k := alb.NewKey(t)
	mine, theirs := albIssuer(t, k), albIssuer(t, k)
	theirs.Name, theirs.ALB = "theirs", &jwt.ALB{Signers: mine.ALB.Signers, KeysURL: mine.ALB.KeysURL, Ingress: []string{"other"}, Callers: []string{other}}
	f := newFixtureWith(t, albRego, func(_ *authz.Options, c *authz.Config) { c.Issuers = []authz.Issuer{mine, theirs} })
	ana := signed(t, k, "ana")
	for range 2 {
		for _, who := range []string{web, other} {
			if _, r := f.ask(t, f.question("POST", "/orders", who, header(ana))); !r.Allowed || r.Token.Subject != "ana" {
				t.Errorf("passed on by %s: %+v", who, r)
			}
		}
		for _, at := range []string{"alb", "other"} {
			if _, r := f.behind(t.Context(), at, f.question("POST", "/orders", "", header(ana))); !r.Allowed {
				t.Errorf("from ingress %s: %+v", at, r)
			}
		}
		if _, r := f.behind(t.Context(), "third", f.question("POST", "/orders", "", header(ana))); r.Allowed {
			t.Errorf("from an ingress that neither names: %+v", r)
		}
	}
}

// userRego allows by what a load balancer says without a signature, and has a header of its own
// of such a name.
const userRego = `package signet.authz.orders

allow contains "reads" if input.request.method == "GET"
allow contains "ana" if input.request.headers["x-amzn-oidc-identity"] == ["ana"]

headers["x-amzn-oidc-user"] := "known" if input.request.method == "PUT"
headers["x-amzn-oidc-accesstoken"] := "ours" if input.request.method == "GET"
`

func TestWhatIsSaidOfUsersIsWithheldFromPolicyAndApplication(t *testing.T) {
	said := []string{"x-amzn-oidc-identity: ana", "x-amzn-oidc-identity: eve", "X-Amzn-Oidc-Accesstoken: t", "x-amzn-mtls-clientcert: PEM", "x-amzn-trace-id: Root=1"}
	one := []string{"x-amzn-oidc-identity: ana"}
	issuers := func(_ *authz.Options, c *authz.Config) { c.Issuers = []authz.Issuer{albIssuer(t)} }
	plain := newFixtureWith(t, userRego)
	for what, c := range map[string]struct {
		f       *fixture
		told    metadata.MD
		source  string
		passing bool
	}{
		"an ingress":                   {plain, metadata.Pairs(proxy.CallersKey, "ingress/alb"), "", false},
		"an ingress that passes it":    {plain, metadata.Pairs(proxy.CallersKey, "ingress/alb", proxy.LetThroughKey, proxy.UnsafeUserHeaders), "", true},
		"an ingress of an issuer":      {newFixtureWith(t, userRego, issuers), metadata.Pairs(proxy.CallersKey, "ingress/alb"), "", true},
		"an ingress without an issuer": {newFixtureWith(t, userRego, issuers), metadata.Pairs(proxy.CallersKey, "ingress/other"), "", false},
		"nobody":                       {plain, nil, "", false},
		"a caller":                     {plain, nil, web, false},
		"a caller by a file":           {plain, metadata.Pairs(proxy.CallersKey, proxy.ForeignCallers), web, false},
		"one who passes it on":         {newFixtureWith(t, userRego, issuers), nil, web, true},
		"another one":                  {newFixtureWith(t, userRego, issuers), nil, other, false},
		"of a mesh that lets it":       {plain, metadata.Pairs(proxy.LetThroughKey, proxy.UnsafeUserHeaders), other, true},
		"observed":                     {observing(t, userRego), nil, other, false},
	} {
		check := func(method string, headers []string) (*authv3.CheckResponse, authz.Record) {
			t.Helper()
			resp, err := c.f.Check(asked(metadata.NewIncomingContext(t.Context(), c.told)), c.f.question(method, "/orders", c.source, headers...))
			must(err)
			return resp, c.f.last()
		}
		want := []string{"x-amzn-mtls-clientcert", "x-amzn-oidc-identity"} // and one of the policy's own
		if c.passing {
			want = nil
		}
		resp, r := check("GET", said)
		got := slices.DeleteFunc(resp.GetOkResponse().GetHeadersToRemove(), func(name string) bool { return name == "x-amzn-oidc-user" })
		if !r.Allowed || !slices.Equal(got, want) || resp.GetOkResponse().GetHeaders()[0].GetHeader().GetValue() != "ours" {
			t.Errorf("%s: %v %+v", what, resp, r)
		}
		if _, r := check("POST", one); r.Allowed != c.passing {
			t.Errorf("%s: the policy saw who it is: %t", what, r.Allowed)
		}
	}
	// What only is observed passes without it.
	f := observing(t, userRego)
	resp, err := f.Check(asked(t.Context()), f.question("POST", "/orders", other, said...))
	must(err)
	for _, name := range []string{"x-amzn-mtls-clientcert", "x-amzn-oidc-accesstoken", "x-amzn-oidc-identity"} {
		if !f.last().Observed || !slices.Contains(resp.GetOkResponse().GetHeadersToRemove(), name) {
			t.Errorf("%s passes where it is observed: %v", name, resp)
		}
	}
}
