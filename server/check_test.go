package server_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/policies"
)

// foundWithin is how soon a condition is to be a finding, and no longer one. Some are none before
// agents had this long to change it.
const foundWithin = policies.StampDeadline + 5*time.Second

// findings are those of an id whose subject or cause has a text.
func (r *rig) findings(id, about string) (list []*api.Finding) {
	r.t.Helper()
	resp, err := r.admin.Check(r.t.Context(), &api.CheckRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range resp.GetFindings() {
		if f.GetId() == id && strings.Contains(f.GetSubject()+" "+f.GetCause(), about) {
			list = append(list, f)
		}
	}
	return list
}

func (r *rig) awaitFound(id, severity, about string) {
	r.t.Helper()
	begun := time.Now()
	eventually(r.t, severity+" "+id+" "+about, func() bool {
		list := r.findings(id, about)
		return len(list) > 0 && list[0].GetSeverityWord() == severity && list[0].GetFix() != ""
	})
	if took := time.Since(begun); took > foundWithin {
		r.t.Errorf("%s was found after %s", id, took)
	}
}

func (r *rig) awaitMended(id, about string) {
	r.t.Helper()
	begun := time.Now()
	eventually(r.t, "no "+id+" "+about, func() bool { return len(r.findings(id, about)) == 0 })
	if took := time.Since(begun); took > foundWithin {
		r.t.Errorf("%s was gone after %s", id, took)
	}
}

// lonely is a mesh in which web calls orders, which only registered endpoints
// answer for.
var lonely = strings.Replace(shop, "  serviceDiscovery:\n    dns: {hostname: orders.internal}\n", "", 1)

// TestEachFindingComesWithItsConditionAndGoesWithIt makes each condition on a
// server with agents that say so, and mends it.
func TestEachFindingComesWithItsConditionAndGoesWithIt(t *testing.T) {
	svid := func(due, end time.Duration) *api.Report {
		now := time.Now()
		return &api.Report{Svids: []*api.SVIDStatus{{SpiffeId: "spiffe://test.example/shop/web", Serial: "01", Consumer: api.SVIDStatus_PROXY.Enum(), NotAfter: timestamppb.New(now.Add(end)), NextRenewal: timestamppb.New(now.Add(due))}}}
	}
	proxy := func(change func(*api.ProxyStatus)) *api.Report {
		p := proxyReport("orders", "shop", "orders", "127.0.0.10", 8080)
		change(p.GetProxies()[0])
		return p
	}
	good := &api.Report{PeerMode: api.Report_PIDFD.Enum()}
	for _, c := range []struct {
		id, severity, about string
		bad, mended         *api.Report
	}{
		{"SIG002", "error", "expired", svid(-time.Minute, -time.Second), svid(time.Minute, time.Hour)},
		{"SIG003", "warning", "rotation was due", svid(-2*time.Minute, time.Hour), svid(time.Minute, time.Hour)},
		{"SIG004", "error", "Envoy refused Listener", proxy(func(p *api.ProxyStatus) {
			p.Rejected = []*api.ResourceStatus{{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Name: "x", Version: "1", Message: "no"}}
		}), good},
		{"SIG008", "error", "is not the agent's own", proxy(func(p *api.ProxyStatus) { p.Address = "192.0.2.1" }), proxy(func(*api.ProxyStatus) {})},
		{"SIG009", "warning", "SO_PEERPIDFD", &api.Report{PeerMode: api.Report_LEGACY.Enum()}, good},
		{"SIG010", "warning", "metrics-open", &api.Report{Findings: []string{"metrics-open: at 0.0.0.0"}}, good},
		{"SIG010", "error", "proxy-waiting: proxy web waits", &api.Report{Own: []*api.AgentFinding{{Kind: api.AgentFinding_PROXY_WAITING.Enum(), Text: "proxy web waits: no binding"}}}, good},
		{"SIG016", "error", "held back", proxy(func(p *api.ProxyStatus) { p.State, p.Healthy, p.Restarts = api.ProxyStatus_BACKOFF.Enum(), false, 7 }), good},
		{"SIG021", "error", "which has no endpoint: all of its calls fail", good, proxy(func(*api.ProxyStatus) {})},
		{"SIG021", "error", "none of whose endpoints is healthy", proxy(func(p *api.ProxyStatus) { p.Healthy = false }), proxy(func(*api.ProxyStatus) {})},
	} {
		t.Run(c.id+" "+c.about, func(t *testing.T) {
			r := newRig(t)
			r.apply(registry + lonely)
			report, _ := r.join("back").session()
			if c.about == "none of whose endpoints is healthy" {
				report(c.mended) // it is an endpoint once it was ready
				r.awaitMended("SIG021", "")
			}
			report(c.bad)
			r.awaitFound(c.id, c.severity, c.about)
			report(c.mended)
			r.awaitMended(c.id, c.about)
		})
	}
}

func TestAHostWithoutAConnectedAgentIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry + shop)
	r.awaitFound("SIG013", "warning", "no agent has joined")
	first, second := r.join("front"), r.join("front") // two hosts of one name
	report1, s1 := first.session()
	report1(&api.Report{})
	report2, s2 := second.session()
	report2(&api.Report{})
	r.awaitMended("SIG013", "")
	time.Sleep(1200 * time.Millisecond) // both were seen at one time
	if err := s1.CloseSend(); err != nil {
		t.Fatal(err)
	}
	r.awaitFound("SIG001", "warning", first.id)
	if list := r.findings("SIG001", ""); len(list) != 1 {
		t.Errorf("%v", list)
	}
	if list := r.findings("SIG013", ""); len(list) != 0 {
		t.Errorf("%v", list)
	}
	if err := s2.CloseSend(); err != nil {
		t.Fatal(err)
	}
	r.awaitFound("SIG013", "error", "no agent is connected")
	r.awaitFound("SIG001", "warning", second.id)
	for _, h := range []*host{first, second} {
		report, _ := h.session()
		report(&api.Report{})
	}
	r.awaitMended("SIG013", "")
	r.awaitMended("SIG001", "")
}

// A connection is renewed again and again; that is nothing to tell of.
func TestAConnectionThatIsRenewedIsNoFinding(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	report, s := h.session()
	report(&api.Report{})
	r.awaitMended("SIG013", "")
	time.Sleep(3 * time.Second) // the server's own start is no excuse any more
	for range 5 {
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
			if list := append(r.findings("SIG013", ""), r.findings("SIG001", "")...); len(list) > 0 {
				t.Fatalf("%v", list)
			}
		}
		report, s = h.session()
		report(&api.Report{})
	}
}

func TestAnAgentThatWasReplacedIsNoFinding(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry + shop)
	_, s := r.join("front").session()
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	next := r.join("front")
	report, s2 := next.session()
	report(&api.Report{})
	time.Sleep(3200 * time.Millisecond)
	if list := r.findings("SIG001", ""); len(list) != 0 {
		t.Errorf("%v", list)
	}
	if err := s2.CloseSend(); err != nil {
		t.Fatal(err)
	}
	r.awaitFound("SIG001", "warning", next.id) // the newest, not the oldest
}

func TestAMeshWithoutAPolicyIsAnErrorUntilThereIsOne(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	r.awaitFound("SIG006", "warning", "no policy is loaded")
	r.apply(shop)
	r.awaitFound("SIG006", "error", "no policy is loaded")
	const options = "apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {authorization: %s}\n"
	observed := r.apply(fmt.Sprintf(options, "observe"))
	r.awaitFound("SIG006", "warning", "once it does not only observe (SIG036)")
	enforced := r.apply(fmt.Sprintf(options, "enforce"))
	for apply, want := range map[string]bool{strings.Join(observed.GetWarnings(), "\n"): false, strings.Join(enforced.GetWarnings(), "\n"): true} {
		if got := strings.Contains(apply, "no PolicySource"); got != want {
			t.Errorf("warned that calls are denied: %v, want %v: %s", got, want, apply)
		}
	}
	r.awaitFound("SIG006", "error", "no policy is loaded")
	p := newRepo(t)
	p.commit(map[string]string{"a.rego": allowAll, "a_test.rego": fails})
	r.apply(p.source())
	r.awaitFound("SIG005", "error", "none succeeded before")
	if f := awaitFinding(t, r, "SIG006", "no policy is loaded"); !strings.HasPrefix(f.GetFix(), "signet policy sync") {
		t.Errorf("there is a source, and the fix is %q", f.GetFix())
	}
	p.commit(map[string]string{"a_test.rego": passes})
	r.sync()
	r.awaitMended("SIG005", "")
	r.awaitMended("SIG006", "")
	p.commit(map[string]string{"a_test.rego": fails})
	r.sync()
	r.awaitFound("SIG005", "error", "stays in force")
}

var revisionInForce = regexp.MustCompile(`signet_server_policy_revision_info\{[^}]*revision="([^"]*)"`)

func TestAnAgentWithoutThePolicyInForceIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry + shop)
	report, _ := r.join("front").session()
	report(&api.Report{PolicyRevision: "old"})
	r.awaitFound("SIG015", "error", `has policy revision "old"`)
	report(&api.Report{PolicyRevision: revisionInForce.FindStringSubmatch(r.get("/metrics"))[1]})
	r.awaitMended("SIG015", "")
}

func TestBindingsThatOverlapAreFoundAndToldBeforeTheyAre(t *testing.T) {
	const node = "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s}\nspec: {group: front, mesh: shop, virtualNode: %s, selectors: [%s]}\n"
	for name, c := range map[string]struct {
		a, b, of string
		severity string // empty: no finding
	}{
		"equal":                        {`"unix:uid:7"`, `"unix:uid:7"`, "orders", "warning"},
		"one within the other":         {`"unix:uid:7"`, `"unix:uid:7", "unix:gid:8"`, "orders", "warning"},
		"a process that has both":      {`"unix:uid:7"`, `"unix:gid:8"`, "orders", "warning"},
		"no process has both":          {`"unix:uid:7"`, `"unix:uid:8"`, "orders", ""},
		"of one virtual node":          {`"unix:uid:7"`, `"unix:gid:8"`, "web", ""},
		"one of a proxy of the agents": {`"signet:proxy:a"`, `"unix:gid:8"`, "orders", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(registry + shop)
			resp := r.apply(fmt.Sprintf(node, "one", "web", c.a) + fmt.Sprintf(node, "two", c.of, c.b))
			warned := slices.ContainsFunc(resp.GetWarnings(), func(w string) bool { return strings.Contains(w, "overlap") })
			if warned != (c.severity != "") {
				t.Errorf("warnings %q", resp.GetWarnings())
			}
			list := r.findings("SIG012", "")
			if c.severity == "" && len(list) > 0 || c.severity != "" && (len(list) != 1 || list[0].GetSeverityWord() != c.severity) {
				t.Errorf("%v", list)
			}
			if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "binding", Name: "two"}); err != nil {
				t.Fatal(err)
			}
			r.awaitMended("SIG012", "")
		})
	}
}

func TestAnIssuerWhoseKeysAreNotThereIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r.apply("apiVersion: signet.example/v1alpha1\nkind: JWTIssuer\nmetadata: {name: login}\nspec: {issuer: \"https://login.example\", audiences: [api], jwksURL: \"" + url + "\", refresh: 1s}\n")
	r.awaitFound("SIG014", "error", "there never were any")
	answer := func() *httptest.Server {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		s := &httptest.Server{Listener: l, Config: &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(fmt.Appendf(nil, jwksFormat, "k")) })}}
		s.Start()
		return s
	}
	s := answer()
	r.awaitMended("SIG014", "")
	s.Close()
	r.awaitFound("SIG014", "warning", "the last good ones")
}

func TestAServiceThatNobodyAnswersIsFound(t *testing.T) {
	r := newRig(t)
	r.apply(registry + strings.Replace(shop, "spec:\n  provider:\n    virtualNode: {virtualNodeRef: {name: orders}}\n", "spec: {}\n", 1))
	r.awaitFound("SIG022", "error", "it has no provider")
	r.apply(shop)
	r.awaitMended("SIG022", "")
}
