package authz_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/metadata"

	"signet.example/authz"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/test/peertest"
)

const ordersRego = `package signet.authz.orders

allow contains "web may read orders" if {
	input.request.method == "GET"
	input.request.segments[0] == "orders"
	input.source.spiffe_id == "spiffe://prod.example/shop/web"
}

allow contains "users may write" if {
	input.request.method == "POST"
	input.jwt.scope == "write"
}

deny contains "nobody reaches admin" if input.request.segments[0] == "admin"

deny contains "no admin role" if "admin" in input.request.headers["x-role"]

headers["x-user"] := input.jwt.sub
`

var (
	orders = spiffeid.RequireFromString("spiffe://prod.example/shop/orders")
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

const web = "spiffe://prod.example/shop/web"

// fixture is a configured server, with the records that it made.
type fixture struct {
	*authz.Server
	rev  policy.Revision
	conf authz.Config

	mu      sync.Mutex
	records []authz.Record
}

func newFixture(t testing.TB, change ...func(*authz.Options, *authz.Config)) *fixture {
	t.Helper()
	return newFixtureWith(t, ordersRego, change...)
}

func newFixtureWith(t testing.TB, rego string, change ...func(*authz.Options, *authz.Config)) *fixture {
	t.Helper()
	f := &fixture{rev: policy.NewRevision("file:///repo", "c0ffee", []policy.Module{{Path: "orders.rego", Rego: rego}}, policy.Generated{Exemptions: []policy.Exemption{{
		Name: "generated: health check /health of shop/orders", Destination: orders.String(), Method: "GET", Path: "/health", Port: 8080, Sources: []string{web},
	}}})}
	compiled, err := policy.Compile(f.rev)
	if err != nil {
		t.Fatal(err)
	}
	opts := authz.Options{Clock: func() time.Time { return noon }, Log: slog.New(slog.DiscardHandler), Record: f.record}
	f.conf = authz.Config{Policies: []*policy.Compiled{compiled}, TokenHashKey: []byte("key")}
	for _, c := range change {
		c(&opts, &f.conf)
	}
	f.Server = authz.New(opts)
	f.Configure(f.conf)
	return f
}

func (f *fixture) record(r authz.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records = append(f.records, r)
}

func (f *fixture) last() authz.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[len(f.records)-1]
}

func asked(ctx context.Context) context.Context {
	return peertest.AskedBy(ctx, authz.Caller{Destination: orders, Proxy: "orders-1"})
}

// ask asks as the attested proxy of orders.
func (f *fixture) ask(t testing.TB, q *authv3.CheckRequest) (*authv3.CheckResponse, authz.Record) {
	t.Helper()
	resp, err := f.Check(asked(t.Context()), q)
	if err != nil || resp == nil {
		t.Fatalf("%v %v", resp, err)
	}
	r := f.last()
	if (resp.GetOkResponse() != nil) != r.Allowed || (resp.GetStatus().GetCode() == 0) != r.Allowed {
		t.Errorf("answer %v, record %+v", resp, r)
	}
	return resp, r
}

func (f *fixture) question(method, path, source string, headers ...string) *authv3.CheckRequest {
	return question(f.rev.ID, method, path, source, headers...)
}

// listenerAt is the proxy's end of a connection to a listener.
func listenerAt(port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// A9-32: what listens at another port of the node is another application.
func TestAHealthCheckIsExemptAtTheListenerThatTheProxySays(t *testing.T) {
	f := newFixture(t)
	for port, want := range map[uint32]bool{8080: true, 8081: false, 0: false} {
		q := f.question("GET", "/health", web, "host: orders:8080", "x-forwarded-port: 8080")
		q.Attributes.Destination.Address = listenerAt(port)
		if _, r := f.ask(t, q); r.Allowed != want {
			t.Errorf("at port %d: allowed %t", port, r.Allowed)
		}
		// A9-52: the connection's own end may be what its sender wrote.
		q.Attributes.Destination.Address = listenerAt(8080)
		if _, err := f.Check(asked(metadata.NewIncomingContext(t.Context(), metadata.Pairs(proxy.PortKey, strconv.FormatUint(uint64(port), 10)))), q); err != nil || f.last().Allowed != want {
			t.Errorf("at port %d, by a connection to 8080: %+v, %v", port, f.last(), err)
		}
	}
}

// What stands in the place of an identity gives none, and a caller who has one is nowhere else.
func TestACallerAtAnIngressHasNoIdentity(t *testing.T) {
	f := newFixtureWith(t, `package signet.authz
allow contains "from the load balancer" if input.source == {"ingress": "alb"}
allow contains "by identity" if {
	input.source.spiffe_id == "`+web+`"
	not input.source.ingress
}`)
	ask := func(source string, told ...string) authz.Record {
		ctx := asked(metadata.NewIncomingContext(t.Context(), metadata.MD{proxy.CallersKey: told}))
		if _, err := f.Check(ctx, f.question("GET", "/", source)); err != nil {
			t.Fatal(err)
		}
		return f.last()
	}
	for name, c := range map[string]struct {
		record authz.Record
		allow  bool
		source string
	}{
		"at the ingress":                 {ask("", "ingress/alb"), true, "ingress/alb"},
		"at another one":                 {ask("", "ingress/nlb"), false, "ingress/nlb"},
		"nowhere":                        {ask(""), false, ""},
		"with an identity":               {ask(web, "ingress/alb"), true, web},
		"of a file, which is no ingress": {ask(web, proxy.ForeignCallers), false, ""},
	} {
		if c.record.Allowed != c.allow || c.record.Source != c.source {
			t.Errorf("%s: %+v", name, c.record)
		}
	}
}

// Envoy refuses them all where the mesh passes none on, and else leaves the others to the agent.
func TestAHeaderWithAnUnderscoreIsRefusedUnlessItsMeshPassesItOn(t *testing.T) {
	f := newFixtureWith(t, "package signet.authz\nallow contains \"all\"")
	for _, c := range []struct {
		passes, header string
		allowed        bool
	}{
		{"color_header,other_one", "Color_Header: red", true},
		{"color_header,other_one", "other_one: 1", true},
		{"color_header,other_one", "x_forwarded_client_cert: forged", false},
		{"color_header,other_one", "color_headers: red", false},
		{"color_header", "x-plain: 1", true},
		{"", "x-plain: 1", true},
	} {
		md := metadata.MD{}
		if c.passes != "" {
			md.Set(proxy.UnderscoresKey, c.passes)
		}
		if _, err := f.Check(asked(metadata.NewIncomingContext(t.Context(), md)), f.question("GET", "/", web, c.header)); err != nil {
			t.Fatal(err)
		}
		if r := f.last(); r.Allowed != c.allowed || !c.allowed && r.Rules[0].Name != "signet: ambiguous header" {
			t.Errorf("%q where %q pass: %+v", c.header, c.passes, r)
		}
	}
}

// question is as Envoy asks it with encode_raw_headers.
func question(revision, method, path, source string, headers ...string) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{Method: method, Path: path, Host: "Orders.shop:8080", Protocol: "HTTP/1.1", Scheme: "http"}
	h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: ":path", RawValue: []byte(path)}, {Key: ":method", RawValue: []byte(method)}}}
	for _, hv := range headers {
		name, value, _ := strings.Cut(hv, ": ")
		h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	q := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Destination:       &authv3.AttributeContext_Peer{Address: listenerAt(8080), Principal: "spiffe://prod.example/shop/lies"},
		Request:           &authv3.AttributeContext_Request{Http: h},
		ContextExtensions: map[string]string{"signet.policy_revision": revision},
	}}
	return peertest.Present(q, source)
}

func TestAnAllowNamesItsRuleAndADenialItsCause(t *testing.T) {
	f := newFixture(t, func(_ *authz.Options, c *authz.Config) {
		c.Bans = map[string]bool{"spiffe://prod.example/shop/bad": true}
	})
	twoHosts := f.question("GET", "/orders/1", web)
	twoHosts.Attributes.Request.Http.Host = "h,evil"
	for name, tc := range map[string]struct {
		q     *authv3.CheckRequest
		cause authz.Cause
		http  int
		rule  string
	}{
		"allowed":                {f.question("GET", "/orders/1?a=b", web), "", 0, "web may read orders"},
		"no rule":                {f.question("PUT", "/orders/1", web), "policy", 403, ""},
		"denied":                 {f.question("GET", "/admin", web), "policy", 403, "nobody reaches admin"},
		"another source":         {f.question("GET", "/orders/1", "spiffe://prod.example/shop/other"), "policy", 403, ""},
		"no source":              {f.question("GET", "/orders/1", ""), "policy", 403, ""},
		"a source that is none":  {f.question("GET", "/orders/1", "CN=web"), "policy", 403, "signet: peer certificate"},
		"two sources":            {f.question("GET", "/orders/1", web+","+web), "policy", 403, "signet: peer certificate"},
		"a source in a header":   {f.question("GET", "/orders/1", "", "x-forwarded-client-cert: URI="+web, "source: "+web), "policy", 403, ""},
		"repeated header":        {f.question("GET", "/orders/1", web, "x-role: user", "X-Role: admin"), "policy", 403, "no admin role"},
		"repeated, other order":  {f.question("GET", "/orders/1", web, "x-role: admin", "x-role: user"), "policy", 403, "no admin role"},
		"banned":                 {f.question("GET", "/orders/1", "spiffe://prod.example/shop/bad"), "policy", 403, "signet: banned identity"},
		"health check":           {f.question("GET", "/health", web), "", 0, "generated: health check /health of shop/orders"},
		"health check of other":  {f.question("GET", "/health", "spiffe://prod.example/shop/x"), "policy", 403, ""},
		"ambiguous path":         {f.question("GET", "/orders/%2e%2e/admin", web), "policy", 403, "signet: ambiguous path"},
		"two hosts":              {twoHosts, "policy", 403, "signet: ambiguous host"},
		"no method":              {f.question("", "/orders/1", web), "policy", 403, "signet: ambiguous method"},
		"a line end in a header": {f.question("GET", "/orders/1", web, "x-a: b\r\nx-role: user"), "policy", 403, "signet: ambiguous header"},
		"bad header":             {f.question("GET", "/orders/1", web, "x-a: \xff"), "policy", 403, "signet: ambiguous header"},
		"no stamp":               {question("", "GET", "/orders/1", web), "unavailable", 503, ""},
		"unknown revision":       {question("0123", "GET", "/orders/1", web), "unavailable", 503, ""},
		"not HTTP":               {&authv3.CheckRequest{}, "policy", 403, "signet: not HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, r := f.ask(t, tc.q)
			rule := ""
			if len(r.Rules) > 0 {
				rule = r.Rules[0].Name
			}
			if r.Cause != tc.cause || rule != tc.rule || r.Allowed != (tc.cause == "") {
				t.Fatalf("cause %q, rule %q, allowed %v: %s", r.Cause, rule, r.Allowed, r.Message)
			}
			if r.Destination != orders.String() || r.Proxy != "orders-1" {
				t.Errorf("destination %s, proxy %s", r.Destination, r.Proxy)
			}
			if b, err := hex.DecodeString(r.ID); err != nil || len(b) != 16 {
				t.Errorf("id %q", r.ID)
			}
			if r.Allowed {
				return
			}
			d := resp.GetDeniedResponse()
			if int(d.GetStatus().GetCode()) != tc.http {
				t.Errorf("status %v", d.GetStatus())
			}
			if h := answerHeaders(d.GetHeaders()); h["x-signet-decision-id"] != r.ID || h["x-signet-denied"] != string(tc.cause) {
				t.Errorf("headers %v", h)
			}
			if want := fmt.Sprintf("denied (%s), decision %s\n", tc.cause, r.ID); d.GetBody() != want {
				t.Errorf("body %q", d.GetBody())
			}
		})
	}
}

func TestASourceIsOneWholeSPIFFEIDOrNone(t *testing.T) {
	f := newFixture(t)
	for _, principal := range []string{
		"", "spiffe://prod.example", "spiffe://prod.example/", "SPIFFE://prod.example/shop/web", "https://prod.example/shop/web",
		"DNS:web", web + "?x", web + "," + web, "spiffe://prod.example/" + strings.Repeat("a", 2048),
	} {
		if _, r := f.ask(t, f.question("GET", "/orders/1", principal)); r.Source != "" {
			t.Errorf("%.50q is taken for %.50q", principal, r.Source)
		}
	}
}

func TestABannedDestinationAllowsNothing(t *testing.T) {
	f := newFixture(t, func(_ *authz.Options, c *authz.Config) { c.Bans = map[string]bool{orders.String(): true} })
	for _, path := range []string{"/orders/1", "/health"} {
		if _, r := f.ask(t, f.question("GET", path, web)); r.Allowed || r.Rules[0].Name != "signet: banned identity" {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

func answerHeaders(list []*corev3.HeaderValueOption) map[string]string {
	out := map[string]string{}
	for _, h := range list {
		out[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return out
}

func TestDenialRecordTellsWhereEachAllowRuleStopped(t *testing.T) {
	f := newFixture(t)
	_, r := f.ask(t, f.question("GET", "/x", web))
	if len(r.Failed) != 2 || r.Failed[1].Name != "web may read orders" || r.Failed[1].File != "orders.rego" || r.Failed[1].Line != 3 ||
		r.Failed[1].Expression != `input.request.segments[0] == "orders"` || r.Failed[1].ExpressionLine != 5 {
		t.Errorf("%+v", r.Failed)
	}
	if r.Commit != "c0ffee" || r.PolicySource != "file:///repo" || r.PolicyRevision != f.rev.ID {
		t.Errorf("%+v", r)
	}
}

func TestHeadersMapOfAnEnvoyWithoutRawHeadersIsRead(t *testing.T) {
	f := newFixture(t)
	q := f.question("GET", "/orders/1", web)
	q.Attributes.Request.Http.HeaderMap = nil
	q.Attributes.Request.Http.Headers = map[string]string{":path": "/orders/1", "x-role": "admin"}
	peertest.Present(q, web)
	if _, r := f.ask(t, q); r.Allowed || r.Rules[0].Name != "no admin role" {
		t.Errorf("%+v", r)
	}
}

func TestAnAllowTakesTheClientsCopiesOfSetHeadersAway(t *testing.T) {
	f := newFixture(t)
	resp, _ := f.ask(t, f.question("GET", "/orders/1", web, "x-user: root", "X-Signet-Decision-Id: forged"))
	if got := strings.Join(resp.GetOkResponse().GetHeadersToRemove(), " "); got != "x-user x-signet-decision-id" {
		t.Errorf("removed %q", got)
	}
}

func TestAHeaderThatAnAllowSetsReplacesTheClients(t *testing.T) {
	f := newFixture(t, withJWT)
	resp, _ := f.ask(t, f.question("POST", "/x", web, "x-user: root", "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json())))
	set := resp.GetOkResponse().GetHeaders()
	if len(set) != 1 || set[0].GetHeader().GetKey() != "x-user" || set[0].GetHeader().GetValue() != "alice" ||
		set[0].GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
		t.Errorf("set %v", set)
	}
}

func TestAnEvaluationErrorDeniesAsErrorAndQuotesNothing(t *testing.T) {
	f := newFixtureWith(t, ordersRego+"\ndeny contains \"old\" if to_number(input.request.headers.cookie[0]) > 1")
	resp, r := f.ask(t, f.question("GET", "/orders/1", web, "cookie: canary"))
	if r.Cause != authz.CauseError || resp.GetDeniedResponse().GetStatus().GetCode() != 500 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.Message, "orders.rego:20") || strings.Contains(fmt.Sprint(r), "canary") {
		t.Errorf("message %q", r.Message)
	}
}

func TestBeforeConfigurationEverythingIsUnavailable(t *testing.T) {
	s := authz.New(authz.Options{})
	resp, err := s.Check(asked(t.Context()), question("x", "GET", "/health", web))
	if err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("%v %v", resp, err)
	}
}

func TestOnlyAttestedCallersAreAnswered(t *testing.T) {
	f := newFixture(t)
	for _, ctx := range []context.Context{t.Context(), peertest.AskedBy(t.Context(), authz.Caller{Proxy: "nobody's"})} {
		resp, err := f.Check(ctx, f.question("GET", "/orders/1", web))
		if err != nil || resp.GetOkResponse() != nil || f.last().Cause != authz.CauseError {
			t.Errorf("%v %v", resp, err)
		}
	}
}

// oddContext panics or blocks where a decision begins.
type oddContext struct {
	context.Context
	value func()
}

func (c oddContext) Value(key any) any {
	c.value()
	return c.Context.Value(key)
}

func TestAPanicIsADenial(t *testing.T) {
	f := newFixture(t)
	resp, err := f.Check(oddContext{asked(t.Context()), func() { panic("canary") }}, f.question("GET", "/orders/1", web))
	if err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 500 || f.last().Cause != authz.CauseError {
		t.Errorf("%v %v", resp, err)
	}
	if strings.Contains(fmt.Sprint(f.last()), "canary") {
		t.Error("the panic's value is in the record")
	}
}

func TestAPanickingRecorderChangesNoAnswer(t *testing.T) {
	f := newFixture(t, func(o *authz.Options, _ *authz.Config) { o.Record = func(authz.Record) { panic("full") } })
	resp, err := f.Check(asked(t.Context()), f.question("GET", "/orders/1", web))
	if err != nil || resp.GetOkResponse() == nil {
		t.Errorf("%v %v", resp, err)
	}
}

// After a host stood still all that came meanwhile is asked at once.
func TestACheckWaitsForItsTurnAsLongAsItsProxyWaits(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(o *authz.Options, _ *authz.Config) {
		var once sync.Once
		o.MaxConcurrent = 1
		o.Evaluating = func(authz.Evaluation) (yield, end func()) {
			once.Do(func() { close(held) })
			<-hold
			return runtime.Gosched, func() {}
		}
	})
	var asking sync.WaitGroup
	asking.Go(func() {
		if _, err := f.Check(asked(t.Context()), f.question("GET", "/orders/1", web)); err != nil {
			t.Error(err)
		}
	})
	<-held
	gaveUp, cancel := context.WithCancel(asked(t.Context()))
	waits := func(ctx context.Context, code int32) {
		n := f.Waiting()
		asking.Go(func() {
			if resp, err := f.Check(ctx, f.question("GET", "/orders/1", web)); err != nil || int32(resp.GetDeniedResponse().GetStatus().GetCode()) != code {
				t.Errorf("want %d, got %v, %v", code, resp, err)
			}
		})
		for f.Waiting() == n {
			time.Sleep(time.Millisecond)
		}
	}
	waits(asked(t.Context()), 0)
	waits(gaveUp, 503)
	cancel()
	for f.Waiting() > 1 {
		time.Sleep(time.Millisecond)
	}
	if r := f.last(); r.Cause != authz.CauseUnavailable || r.Destination == "" || !strings.Contains(r.Message, "gave up") {
		t.Errorf("%+v", r)
	}
	close(hold)
	asking.Wait()
	if _, r := f.ask(t, f.question("GET", "/orders/1", web)); !r.Allowed {
		t.Errorf("after the overload: %+v", r)
	}
}

// They wait for each other, and for nobody's turn.
func TestChecksOfASuspectDestinationKeepNoOthersOut(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(o *authz.Options, c *authz.Config) {
		c.Suspect = map[authz.Evaluation]bool{{Destination: orders.String(), Revision: c.Policies[0].Revision().ID}: true}
		o.Evaluating = func(e authz.Evaluation) (yield, end func()) {
			if e.Destination == orders.String() {
				select {
				case held <- struct{}{}:
				case <-hold:
				}
				<-hold
			}
			return runtime.Gosched, func() {}
		}
	})
	ctx, cancel := context.WithCancel(asked(t.Context()))
	defer cancel()
	const all, most = 300, 32
	answers := make(chan *authv3.CheckResponse, all)
	check := func(ctx context.Context) {
		resp, err := f.Check(ctx, f.question("GET", "/orders/1", web))
		if err != nil {
			t.Error(err)
		}
		answers <- resp
	}
	go check(asked(t.Context()))
	<-held
	for range all - 1 {
		go check(ctx)
	}
	for range all - most {
		if resp := <-answers; resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
			t.Fatalf("one of too many: %v", resp)
		}
	}
	elsewhere := peertest.AskedBy(t.Context(), authz.Caller{Destination: spiffeid.RequireFromString(web), Proxy: "web-1"})
	if _, err := f.Check(elsewhere, f.question("GET", "/orders/1", web)); err != nil {
		t.Fatal(err)
	}
	if r := f.last(); r.Destination != web || r.Cause == authz.CauseUnavailable {
		t.Errorf("a check for another destination: %+v", r)
	}
	cancel() // all but the first give up
	for range most - 1 {
		if resp := <-answers; resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
			t.Errorf("one that gave up: %v", resp)
		}
	}
	close(hold)
	if resp := <-answers; resp.GetOkResponse() == nil {
		t.Errorf("the one that was made: %v", resp)
	}
	if _, r := f.ask(t, f.question("GET", "/orders/1", web)); !r.Allowed {
		t.Errorf("after all: %+v", r)
	}
}

func TestACallerThatGaveUpIsDenied(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(asked(t.Context()))
	cancel()
	for range 3 {
		resp, err := f.Check(ctx, f.question("GET", "/x", web))
		if err != nil || resp.GetOkResponse() != nil {
			t.Errorf("%v %v", resp, err)
		}
	}
}

func TestConfigureSwapsRevisionsWhileDeciding(t *testing.T) {
	f := newFixture(t)
	allowAll, err := policy.Compile(policy.NewRevision("", "2", []policy.Module{{Path: "a.rego", Rego: "package signet.authz\nallow contains \"all\""}}, policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	both := f.conf
	both.Policies = append(both.Policies, allowAll)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Under either configuration this revision denies.
				resp, err := f.Check(asked(t.Context()), f.question("DELETE", "/x", web))
				if err != nil || resp.GetOkResponse() != nil {
					t.Errorf("%v %v", resp, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		f.Configure([]authz.Config{f.conf, both}[i%2])
	}
	close(stop)
	wg.Wait()
	if resp, _ := f.ask(t, question(allowAll.Revision().ID, "DELETE", "/x", web)); resp.GetOkResponse() == nil {
		t.Error("the new revision is not used")
	}
}

func TestAConfigurationIsAsItWasWhenItWasGiven(t *testing.T) {
	f := newFixture(t, withJWT, func(_ *authz.Options, c *authz.Config) { c.Bans = map[string]bool{web: true} })
	q := f.question("POST", "/x", "", "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json()))
	_, before := f.ask(t, q)
	delete(f.conf.Bans, web)
	f.conf.TokenHashKey[0]++
	if _, r := f.ask(t, f.question("GET", "/orders/1", web)); r.Allowed {
		t.Error("a ban was lifted without a new configuration")
	}
	if _, r := f.ask(t, q); r.Token.KeyedHash != before.Token.KeyedHash {
		t.Error("tokens are hashed with another key without a new configuration")
	}
	f.conf.Issuers[0].JWKS = jwks("ec")
	f.Configure(f.conf)
	if _, r := f.ask(t, q); r.Allowed {
		t.Error("a key that is gone still verifies: the new issuers were taken for the old ones")
	}
}

func TestMetricsCountByResultAndCause(t *testing.T) {
	m := authz.NewMetrics()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	m.Observe(authz.Record{Allowed: true})
	m.Observe(authz.Record{Cause: authz.CausePolicy})
	m.Observe(authz.Record{Cause: authz.CausePolicy})
	m.Observe(authz.Record{Cause: authz.CausePolicy, Observed: true})
	want := `# HELP signet_authz_decisions_total Authorization decisions by result (allowed, denied, observed: let through although the policy denies it) and cause of the denial (policy, error, unavailable).
# TYPE signet_authz_decisions_total counter
signet_authz_decisions_total{cause="",result="allowed"} 1
signet_authz_decisions_total{cause="error",result="denied"} 0
signet_authz_decisions_total{cause="error",result="observed"} 0
signet_authz_decisions_total{cause="policy",result="denied"} 2
signet_authz_decisions_total{cause="policy",result="observed"} 1
signet_authz_decisions_total{cause="unavailable",result="denied"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "signet_authz_decisions_total"); err != nil {
		t.Error(err)
	}
}

// TestWithoutAPolicyADenialSaysSo: no rule was missed, there is none.
func TestWithoutAPolicyADenialSaysSo(t *testing.T) {
	empty := policy.NewRevision("", "", nil, policy.Generated{})
	compiled, err := policy.Compile(empty)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(_ *authz.Options, c *authz.Config) { c.Policies = append(c.Policies, compiled) })
	q := f.question("GET", "/orders", web)
	q.Attributes.ContextExtensions["signet.policy_revision"] = empty.ID
	if _, r := f.ask(t, q); r.Allowed || r.Cause != authz.CausePolicy || len(r.Rules) != 1 || r.Rules[0].Name != "signet: no policy" || !strings.Contains(r.Message, "apply a PolicySource") {
		t.Errorf("%+v", r)
	}
}
