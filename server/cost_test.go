package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/access"
	"signet.example/server/awaited"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
	"signet.example/server/policies"
	"signet.example/server/roster"
	"signet.example/server/shared"
	"signet.example/server/views"
	"signet.example/store"
)

// agentX is an agent of group g.
var agentX = fleet.Peer{ID: spiffeid.RequireFromString("spiffe://test.example/signet/agent/x"), Agent: store.Agent{ID: "x", Group: "g"}, Remote: netip.MustParseAddr("127.0.0.1")}

// inNoStore keeps agents nowhere.
type inNoStore struct{}

func (inNoStore) Agents(context.Context) ([]store.Agent, error) { return nil, nil }
func (inNoStore) PutAgent(context.Context, store.Agent) error   { return nil }
func (inNoStore) Joined() (uint64, <-chan struct{})             { return 0, nil }

// rosterOf is of an agent that joined.
func rosterOf(t *testing.T, a store.Agent) *roster.Roster {
	t.Helper()
	r := roster.New(roster.Config{Store: inNoStore{}, Place: func([]string) string { return "" }, Principal: nodes.Principal, Takes: nodes.Config{}.Takes})
	if err := r.Enrol(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return r
}

// soak is the size of a test in CI, or that with SOAK=1.
func soak(ci, most int) int {
	if os.Getenv("SOAK") == "1" {
		return most
	}
	return ci
}

// most is how many entries stand for any number: [20,000 / 100,000].
func most() int { return soak(20_000, 100_000) }

// noRevisions is a store of policy revisions that has none.
type noRevisions struct{}

func (noRevisions) LastRevision(context.Context) (store.PolicyRow, error) {
	return store.PolicyRow{}, store.ErrNotFound
}

func (noRevisions) PutRevision(context.Context, store.PolicyRow) error { return nil }

// firstInForce are policies of which the first revision of a model is in force.
func firstInForce(t *testing.T, m *model.Model) *policies.Revisions {
	t.Helper()
	p := policies.New(policies.Config{
		TrustDomain: modeltest.TrustDomain, Shared: &watched.Value[*policies.State]{}, Activating: shared.NewMutex(), Store: noRevisions{}, Clock: time.Now, Changed: func() {}, Log: slog.New(slog.DiscardHandler),
		Look: func() policies.Look { return policies.Look{Graph: m.Graph()} },
	})
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// manyEntries is a model with n more entries, without a manifest of each.
func manyEntries(t *testing.T, n int) *model.Model {
	t.Helper()
	m := modeltest.Of(t, modeltest.Services(20)+modeltest.Own("Entry", "e0", "group: g, spiffeID: \"spiffe://test.example/0\", selectors: [\"unix:uid:0\"]"))
	first := m.Objects().Get(kinds.Key{Kind: kinds.Entry, Name: "e0"})
	var all []*kinds.Object
	for i := range n {
		o := *first
		e := o.Value.(identity.Entry)
		e.Name = fmt.Sprintf("x%d", i)
		d := *first.Doc
		d.Name, o.Doc, o.Value = e.Name, &d, e
		all = append(all, &o)
	}
	m, err := m.With(all)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// issuesNames issues the name that is asked for.
type issuesNames struct{}

func (issuesNames) Issue(_ context.Context, _ issuance.Share, items []*api.SignItem) ([]*api.SignResult, error) {
	return []*api.SignResult{{Chain: [][]byte{[]byte(items[0].GetSpiffeId())}}}, nil
}

func TestACertificateIsTheSameWorkAmongAnyNumberOfEntries(t *testing.T) {
	work := func(n int) float64 {
		m := manyEntries(t, n)
		issued := prometheus.NewCounter(prometheus.CounterOpts{})
		svids := issuance.New(issuance.Config{
			Batches: issuesNames{}, Limits: newLimiters(1e6, 1e6),
			Metrics: issuance.Metrics{Issued: func(api.Profile, string) prometheus.Counter { return issued }},
		})
		c := &access.Caller{ID: agentX.ID, Agent: agentX.Agent}
		req := &api.IssueRequest{Requests: []*api.SVIDRequest{{Entry: "x7", Csr: []byte{1}}}}
		return testing.AllocsPerRun(100, func() {
			resp, refused, err := svids.Batch(t.Context(), requesterOf(c, m), req)
			if err != nil || refused != "" || string(resp.GetResults()[0].GetChain()[0]) != "spiffe://test.example/0" {
				t.Fatal(resp, refused, err)
			}
		})
	}
	few, many := work(1000), work(most())
	t.Logf("allocations: %.0f among 1,000, %.0f among %d", few, many, most())
	if many > few {
		t.Errorf("%.0f allocations among %d entries, %.0f among 1,000", many, most(), few)
	}
}

// followed are the views of a model, followed by an agent of group g and by proxies of
// virtual nodes.
type followed struct {
	t         *testing.T
	model     *model.Model
	endpoints *fleet.Endpoints
	views     *views.Views
	by        map[string]*ads.View // by virtual node, and the agent's
}

// viewsOf are followed by the agent and by a proxy of each virtual node, except some.
func viewsOf(t *testing.T, m *model.Model, except ...string) *followed {
	t.Helper()
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	f := &followed{
		t: t, model: m, by: map[string]*ads.View{},
		endpoints: fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: everywhere{}, Clock: time.Now}),
	}
	counted := newMetrics()
	f.views = views.New(views.Config{
		TrustDomain: modeltest.TrustDomain, SVIDLifetime: time.Hour, PostQuantum: func(string) bool { return false }, Log: slog.New(slog.DiscardHandler),
		Metrics: views.Metrics{Published: counted.published, BuildErrors: counted.buildErrors, Rebuild: counted.rebuild},
	}, sources{func() *model.Model { return m }, func() issuance.Roots { return issuance.Roots{} }, rosterOf(t, agentX.Agent), f.endpoints, &watched.Value[*awaited.Nodes]{}, firstInForce(t, m), &issuers.Keys{}, nil}, anyone{}, watched.NewSignal())
	f.follow("agent", &corev3.Node{Id: agentX.ID.String()})
	for _, n := range m.Graph().Nodes("m") {
		if !slices.Contains(except, n.Name) {
			f.follow(n.Name, anyNode("m", n.Name))
		}
	}
	f.views.Rebuild(t.Context(), nil)
	return f
}

func (f *followed) follow(name string, node *corev3.Node) {
	f.t.Helper()
	ctx := f.t.Context()
	if name != "agent" {
		ctx = context.WithValue(ctx, asAgent{}, "of "+name) // each has an agent of its own, which makes few
	}
	view, err := f.views.View(ctx, node)
	if err != nil {
		f.t.Fatal(err)
	}
	f.by[name] = view
}

// report has a proxy of n7a healthy, or not.
func (f *followed) report(healthy bool) {
	f.endpoints.Report(agentX, reportOf("n7a", healthy))
}

// everywhere may be hosted everything.
type everywhere struct{}

func (everywhere) MayHost(string, proxy.Ref) (string, bool) { return "group", true }
func (everywhere) MayListen(string, netip.Addr) bool        { return false }

// reportOf is of one proxy, of a virtual node of mesh m.
func reportOf(node string, healthy bool) *api.Report {
	return &api.Report{Proxies: []*api.ProxyStatus{{
		Name: "p", VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: node}, Address: "127.0.0.1",
		Ports: []uint32{80}, State: api.ProxyStatus_READY.Enum(), Healthy: healthy,
	}}}
}

func TestAHealthChangeMakesTheViewsOfWhoCallsAndNothingElse(t *testing.T) {
	work := func(n int) float64 {
		f := viewsOf(t, manyEntries(t, n))
		healthy := false
		flip := func() {
			healthy = !healthy
			f.report(healthy)
		}
		flip()
		f.views.Rebuild(t.Context(), nil)
		sets := func() map[string]*ads.Set {
			all := map[string]*ads.Set{}
			for name, view := range f.by {
				all[name] = view.Set()
			}
			return all
		}
		return testing.AllocsPerRun(5, func() {
			before := sets()
			flip()
			f.views.Rebuild(t.Context(), nil)
			var other []string
			for name, set := range sets() {
				if set != before[name] {
					other = append(other, name)
				}
			}
			slices.Sort(other)
			var callers []string
			for n := range f.model.Graph().Reaching(mesh.NodeName(proxy.Node("m", "n7a"))) {
				if n.Name != "n7a" { // in its own view there is nothing of its endpoints
					callers = append(callers, n.Name)
				}
			}
			if slices.Sort(callers); !slices.Equal(other, callers) || len(callers) == 0 {
				t.Fatalf("views that were made anew: %v, want those of %v", other, callers)
			}
		})
	}
	few, many := work(1000), work(most())
	t.Logf("allocations: %.0f among 1,000 entries, %.0f among %d", few, many, most())
	if many > few*1.01 {
		t.Errorf("%.0f allocations among %d entries, %.0f among 1,000", many, most(), few)
	}
}

func TestAWeightMakesTheViewsOfWhoCallsTheService(t *testing.T) {
	m := modeltest.Of(t, modeltest.Services(200))
	next, err := m.With(modeltest.Objects(t, m, modeltest.Weight(8, 50)))
	if err != nil {
		t.Fatal(err)
	}
	look := func(m *model.Model) views.Look { return views.Look{Model: viewed{m}, Endpoints: &fleet.Registered{}} }
	if touched := views.Affected(look(m), look(next)); len(touched) < 5 || len(touched) > 12 {
		t.Errorf("%d nodes are translated again, want those that call the service", len(touched))
	}
}

// A view that is made between two changes, the second of which takes the first
// back, is not left with the first.
func TestAViewThatIsMadeBetweenTwoChangesIsMadeAgain(t *testing.T) {
	const node = "n6a" // calls the service that n7a is behind
	m := modeltest.Of(t, modeltest.Services(20))
	before := viewsOf(t, m)
	before.report(true)
	before.views.Rebuild(t.Context(), nil)
	want := before.by[node].Set().Version()
	f := viewsOf(t, m, node)
	f.report(true)
	f.views.Rebuild(t.Context(), nil)
	f.report(false)
	f.follow(node, anyNode("m", node))
	if f.by[node].Set().Version() == want {
		t.Fatal("the view does not know of the change")
	}
	f.report(true)
	if f.views.Rebuild(t.Context(), nil); f.by[node].Set().Version() != want {
		t.Error("the view has the endpoint as it was for a moment")
	}
}

// An agent has bounds of its own for this; one that is taken over has none.
func TestAnAgentHasNoMoreViewsMadeThanItNeeds(t *testing.T) {
	f := viewsOf(t, modeltest.Of(t, modeltest.Services(20)))
	ask := func(agent string, n int) error {
		node := anyNode("m", "n1a")
		node.Metadata = proxy.Shape{
			Bind: fmt.Sprintf("127.3.%d.%d", n>>8, n&255), App: "127.0.0.1", Egress: proxy.EgressPort("127.0.0.2", proxy.DefaultEgressPort),
			AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock",
		}.Metadata()
		_, err := f.views.View(context.WithValue(t.Context(), asAgent{}, agent), node)
		return err
	}
	for n := range views.MaxMadeOfNode {
		if err := ask("bad", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask("bad", views.MaxMadeOfNode); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if err := ask("bad", 0); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := ask("good", views.MaxMadeOfNode); err != nil {
		t.Errorf("another agent: %v", err)
	}
}
