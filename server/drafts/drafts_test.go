package drafts_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/mesh/graphtest"
	"signet.example/server/drafts"
)

const declaredShop = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec: {meshRef: {name: shop}, backends: [{virtualService: {virtualServiceRef: {name: orders}}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec: {meshRef: {name: shop}, listeners: [{portMapping: {port: 8080, protocol: http}, healthCheck: {protocol: http, path: /health, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec: {meshRef: {name: shop}, provider: {virtualNode: {virtualNodeRef: {name: orders}}}}
`

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// policyOf is what is written of the shop.
func policyOf(t *testing.T, s drafts.Sessions, req *api.DraftPolicyRequest) (*api.DraftPolicyResponse, error) {
	t.Helper()
	g := graphtest.Graph(t, "shop.yaml", []byte(declaredShop))
	return drafts.Drafts{TrustDomain: spiffeid.RequireTrustDomainFromString("test.example"), Sessions: s}.Policy(t.Context(), g, req)
}

func TestAPolicyIsDraftedOfAMeshAndItsHealthChecksAreListed(t *testing.T) {
	answer, err := policyOf(t, nil, &api.DraftPolicyRequest{Mesh: "shop"})
	if err != nil || len(answer.GetFiles()) != 2 || answer.GetFiles()[0].GetRules() != 1 || !strings.Contains(answer.GetFiles()[0].GetContent(), `"shop/web may call"`) {
		t.Errorf("%v, %v", answer, err)
	}
	if e := answer.GetExemptions(); len(e) != 1 || e[0].GetPath() != "/health" || !slices.Equal(e[0].GetSources(), []string{"spiffe://test.example/shop/web"}) {
		t.Errorf("exemptions: %v", e)
	}
	if answer, err := policyOf(t, nil, &api.DraftPolicyRequest{Mesh: "sho"}); err != nil || len(answer.GetFiles())+len(answer.GetExemptions()) > 0 {
		t.Errorf("of another mesh: %v, %v", answer, err)
	}
}

// remembering are hosts whose agents answer with the newest that they keep, some of them with
// less at once than is asked for.
type remembering struct {
	hosts map[string][]*api.Decision
	most  map[string]int
	asked int
}

// Decisions implements drafts.Sessions.
func (r *remembering) Decisions(_ context.Context, f *api.DecisionFilter) ([]*api.Decision, []string) {
	r.asked++
	var all []*api.Decision
	newest := func(a, b *api.Decision) int { return b.GetTime().AsTime().Compare(a.GetTime().AsTime()) }
	for host, of := range r.hosts {
		var list []*api.Decision
		for _, d := range of {
			if at := d.GetTime().AsTime(); (f.GetSince() == nil || !at.Before(f.GetSince().AsTime())) && (f.GetUntil() == nil || !at.After(f.GetUntil().AsTime())) {
				list = append(list, d)
			}
		}
		slices.SortFunc(list, newest)
		all = append(all, list[:min(len(list), cmp.Or(r.most[host], 500))]...)
	}
	slices.SortStableFunc(all, newest)
	return all[:min(len(all), int(f.GetLimit()))], []string{"quiet"}
}

func TestAllThatAgentsRememberIsLookedAtHoweverLittleTheyAnswerAtOnce(t *testing.T) {
	r := &remembering{hosts: map[string][]*api.Decision{}, most: map[string]int{"short": 50}}
	n := 0
	for host, of := range map[string]struct {
		count int
		every time.Duration
		first time.Duration
	}{"busy": {1200, time.Second, 0}, "short": {300, 7 * time.Second, time.Minute}, "old": {30, time.Second, 24 * time.Hour}} {
		for i := range of.count {
			n++
			r.hosts[host] = append(r.hosts[host], &api.Decision{
				Id: fmt.Sprint(host, i), Node: host, Time: timestamppb.New(noon.Add(-of.first - time.Duration(i)*of.every)), Allowed: i%2 == 0, Observed: i%2 == 1,
				Source: "spiffe://test.example/shop/web", Destination: "spiffe://test.example/shop/orders", Method: "GET", Path: "/" + host,
			})
		}
	}
	answer, err := policyOf(t, r, &api.DraftPolicyRequest{FromTraffic: true})
	if err != nil || int(answer.GetDecisions()) != n || r.asked > 30 || !slices.Equal(answer.GetSilent(), []string{"quiet"}) || len(answer.GetNotes()) > 0 {
		t.Errorf("%d of %d by %d questions, %v, notes %v, %v", answer.GetDecisions(), n, r.asked, answer.GetSilent(), answer.GetNotes(), err)
	}
	for _, want := range []string{"# GET: 1200 calls, 600 of them against the policy", "# GET: 300 calls", "# GET: 30 calls, 15 of them"} {
		if !strings.Contains(answer.GetFiles()[0].GetContent(), want) {
			t.Errorf("no %q in\n%s", want, answer.GetFiles()[0].GetContent())
		}
	}
	since := &api.DraftPolicyRequest{FromTraffic: true, Since: timestamppb.New(noon.Add(-99 * time.Second))}
	if answer, err = policyOf(t, r, since); err != nil || answer.GetDecisions() != 100+6 {
		t.Errorf("since: %d, %v", answer.GetDecisions(), err)
	}
}

// What was seen is read as it is meant: connections, health checks, whose rule denies.
func TestDecisionsAreReadAsWhatTheyWere(t *testing.T) {
	r := &remembering{hosts: map[string][]*api.Decision{}}
	of := func(change func(*api.Decision)) {
		c := &api.Decision{
			Id: fmt.Sprint(len(r.hosts["one"])), Node: "one", Time: timestamppb.New(noon), Observed: true, Method: "GET", Path: "/x", Host: "port 80",
			Source: "spiffe://test.example/shop/web", Destination: "spiffe://test.example/shop/orders",
		}
		change(c)
		r.hosts["one"] = append(r.hosts["one"], c)
	}
	of(func(c *api.Decision) { c.Rules = []*api.Rule{{Name: "signet: no policy"}} })
	of(func(c *api.Decision) { c.Method, c.Path, c.Host = "tcp", "", "port 6379" })
	of(func(c *api.Decision) {
		c.Allowed, c.Path, c.Rules = true, "/health", []*api.Rule{{Name: "generated: health check /health of shop/orders at port 8080"}}
	})
	of(func(c *api.Decision) { c.Path, c.Rules = "/admin", []*api.Rule{{Name: "nobody may"}} })
	of(func(c *api.Decision) { c.Path, c.Observed, c.Cause = "/denied", false, api.Cause_CAUSE_POLICY })
	of(func(c *api.Decision) { c.Path, c.Observed, c.Kind = "/nowhere", false, "no-route" })
	answer, err := policyOf(t, r, &api.DraftPolicyRequest{FromTraffic: true})
	if err != nil {
		t.Fatal(err)
	}
	rules := answer.GetFiles()[0]
	if rules.GetRules() != 2 || !strings.Contains(rules.GetContent(), `"shop/web may GET /x"`) || !strings.Contains(rules.GetContent(), `"shop/web may connect to port 6379"`) {
		t.Errorf("%s", rules.GetContent())
	}
	if notes := strings.Join(answer.GetNotes(), "\n"); !strings.Contains(notes, "rule nobody may denies them: 1 call") || !strings.Contains(notes, "they were denied: 1 call") {
		t.Errorf("%s", notes)
	}
}
