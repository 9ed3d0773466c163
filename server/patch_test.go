package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/access"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/policies"
	"signet.example/server/shared"
	"signet.example/server/views"
	"signet.example/store"
)

var testTD = spiffeid.RequireTrustDomainFromString("test.example")

// agentX is an agent of group g.
var agentX = fleet.Peer{ID: spiffeid.RequireFromString("spiffe://test.example/signet/agent/x"), Agent: store.Agent{ID: "x", Group: "g"}, Remote: netip.MustParseAddr("127.0.0.1")}

// inNoStore keeps agents nowhere.
type inNoStore struct{}

func (inNoStore) Agents(context.Context) ([]store.Agent, error) { return nil, nil }
func (inNoStore) PutAgent(context.Context, store.Agent) error   { return nil }
func (inNoStore) Joined() (uint64, <-chan struct{})             { return 0, nil }

// rosterOf is of an agent that joined.
func rosterOf(t *testing.T, a store.Agent) *fleet.Roster {
	t.Helper()
	r := fleet.NewRoster(inNoStore{}, func([]string) string { return "" })
	if err := r.Enrol(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return r
}

// understood are the objects of manifests, of meshes that now has or they have.
func understood(t testing.TB, now *model, manifests string) []*kinds.Object {
	t.Helper()
	objects, err := read(testTD, now, manifests)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func emptyModel(t testing.TB) *model {
	t.Helper()
	m, err := newModel(testTD, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func modelOf(t testing.TB, manifests string) *model {
	t.Helper()
	m := emptyModel(t)
	next, err := m.with(understood(t, m, manifests))
	if err != nil {
		t.Fatal(err)
	}
	return next
}

const oneMesh = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: m}\n"

func own(kind, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: signet.example/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

func ofMesh(kind, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

// randomObject is one of a few names; some of what they name is not there.
func randomObject(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	selectors := func() string {
		return "selectors: [\"unix:uid:" + pick("1", "2") + "\"" + pick("", ", \"unix:path:/x\"") + "]"
	}
	switch r.IntN(9) {
	case 0:
		return own("NodeGroup", pick("g1", "g2", "g3"), "")
	case 1, 2:
		return own("Entry", pick("e1", "e2", "e3", "e4"), "group: "+pick("g1", "g2", "g3")+", spiffeID: \"spiffe://test.example/"+pick("a", "b")+"\", "+selectors()+pick("", ", hint: a", ", hint: a", ", hint: b"))
	case 3, 4:
		return own("Binding", pick("b1", "b2", "b3", "b4"), "group: "+pick("g1", "g2", "g3")+", mesh: m, virtualNode: "+pick("n1", "n2", "n3")+", "+selectors())
	case 5:
		return own("JWTIssuer", pick("i1", "i2"), "issuer: \"https://"+pick("x", "y")+".example\", audiences: [a], jwksURL: \"https://x.example/keys\"")
	case 6:
		return own("PolicySource", pick("p1", "p2"), "url: \"https://git.example/p.git\"")
	case 7:
		return ofMesh("VirtualService", pick("s1", "s2"), "provider: {virtualNode: {virtualNodeRef: {name: "+pick("n1", "n2", "n3")+"}}}")
	}
	return ofMesh("VirtualNode", pick("n1", "n2", "n3"), "listeners: [{portMapping: {port: "+pick("80", "81")+", protocol: http}}]"+pick("", ", backends: [{virtualService: {virtualServiceRef: {name: s1}}}]"))
}

func TestAChangedModelIsWhatIsMadeOfEverything(t *testing.T) {
	taken, refused := 0, 0
	for seed := range soak(20, 1000) {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		m := modelOf(t, oneMesh+own("NodeGroup", "g1", "")+own("NodeGroup", "g2", ""))
		for step := range 60 {
			var put []*kinds.Object
			var remove []kinds.Key
			after := maps.Collect(m.objects.All())
			for range 1 + r.IntN(3) {
				o := understood(t, m, randomObject(r))[0]
				k := o.Key()
				if slices.Contains(remove, k) || slices.ContainsFunc(put, func(p *kinds.Object) bool { return p.Key() == k }) {
					continue
				}
				if old := after[k]; old != nil && r.IntN(3) == 0 {
					remove = append(remove, k)
					delete(after, k)
				} else if put = append(put, o); !o.SameAs(old) {
					after[k] = o
				}
			}
			want, err := newModel(testTD, 0, slices.Collect(maps.Values(after)))
			got := m.patched(put, remove, nil)
			if (got != nil) != (err == nil) {
				t.Fatalf("seed %d, step %d: everything gives %v, and the change is taken: %t", seed, step, err, got != nil)
			}
			if _, werr := m.with(put, remove...); (werr == nil) != (err == nil) || err != nil && inLines(werr) != inLines(err) {
				t.Fatalf("seed %d, step %d: refused with\n%v\nand not with\n%v", seed, step, werr, err)
			}
			if got == nil {
				refused++
				continue
			}
			taken++
			if !slices.Equal(texts(groups.Overlaps(got.groups.Granted.All())), texts(groups.Overlaps(want.groups.Granted.All()))) || !slices.Equal(texts(groups.SameHints(got.groups.Granted.All())), texts(groups.SameHints(want.groups.Granted.All()))) {
				t.Fatalf("seed %d, step %d: warnings %v %v, want %v %v", seed, step, groups.Overlaps(got.groups.Granted.All()), groups.SameHints(got.groups.Granted.All()), groups.Overlaps(want.groups.Granted.All()), groups.SameHints(want.groups.Granted.All()))
			}
			if a, b := settled(got), settled(want); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d, step %d: the model is not what everything gives:\n%+v\n%+v", seed, step, a, b)
			}
			m = got
		}
	}
	t.Logf("%d changes taken, %d refused", taken, refused)
	if taken < 100 || refused < 100 {
		t.Error("the changes are of one sort")
	}
}

// inLines are the mistakes of an error, in the order of their texts: of which of two
// objects each is told depends on which of them was there.
func inLines(err error) string {
	lines := strings.Split(err.Error(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestAModelDoesNotKeepWhatItWasMadeOf(t *testing.T) {
	m := modelOf(t, oneMesh+own("NodeGroup", "g", ""))
	first := weak.Make(m)
	for i := range 3 {
		if m = m.patched(understood(t, m, own("NodeGroup", fmt.Sprintf("g%d", i), "")), nil, nil); m == nil {
			t.Fatal("not patched")
		}
	}
	runtime.GC()
	if first.Value() != nil {
		t.Error("the first model is kept by the fourth")
	}
	runtime.KeepAlive(m)
}

func TestOfManyObjectsThatOverlapSomePairsAreListed(t *testing.T) {
	m := modelOf(t, oneMesh+own("NodeGroup", "g", "")+ofMesh("VirtualNode", "a", "")+ofMesh("VirtualNode", "b", ""))
	binding := func(i int) string {
		return own("Binding", fmt.Sprintf("b%03d", i), fmt.Sprintf("group: g, mesh: m, virtualNode: %s, selectors: ['unix:uid:1']", []string{"a", "b"}[i%2]))
	}
	const n = 60 // 900 pairs
	for i := range n {
		if m = m.patched(understood(t, m, binding(i)), nil, nil); m == nil {
			t.Fatal("not patched")
		}
	}
	if got := len(groups.Overlaps(m.groups.Granted.All())); got != groups.MostPairs || len(groups.Unlisted(m.groups.Granted.All())) != 1 {
		t.Fatalf("%d overlaps are listed, and said to be too many in %v", got, groups.Unlisted(m.groups.Granted.All()))
	}
	for i := range n - 4 { // what is left is four, two of each
		if m = m.patched(nil, []kinds.Key{{Kind: kinds.Binding, Name: fmt.Sprintf("b%03d", i)}}, nil); m == nil {
			t.Fatal("not patched")
		}
	}
	if got := len(groups.Overlaps(m.groups.Granted.All())); got != 4 || len(groups.Unlisted(m.groups.Granted.All())) != 0 {
		t.Errorf("%d overlaps are listed, and said to be too many in %v: want the four that there are", got, groups.Unlisted(m.groups.Granted.All()))
	}
}

// soak is the size of a test in CI, or that with SOAK=1.
func soak(ci, most int) int {
	if os.Getenv("SOAK") == "1" {
		return most
	}
	return ci
}

func texts[T fmt.Stringer](list []T) []string {
	var all []string
	for _, x := range list {
		all = append(all, x.String())
	}
	return all
}

type settledModel struct {
	model
	granted map[string][]*ads.Resource
}

// settled is a model, with what is granted to each group beside it. What does not go
// together, which was compared already, is left out: its order in a group is that in
// which it came about.
func settled(m *model) (s settledModel) {
	s.model, s.granted = *m, map[string][]*ads.Resource{}
	for name := range m.groups.Granted.All() {
		_, resources := m.groups.Granted.Of(name)
		s.granted[name] = slices.Collect(resources)
	}
	s.groups.Granted = groups.Granted{}
	return s
}

// services is a mesh of n services, each with a router, two nodes and their bindings; ten
// nodes call ten services each.
func services(n int) string {
	docs := []string{oneMesh, own("NodeGroup", "g", "")}
	for i := range n {
		backends := ""
		for j := range min(10, n) {
			backends += fmt.Sprintf("{virtualService: {virtualServiceRef: {name: s%d}}}, ", (i*7+j+1)%n)
		}
		for _, side := range []string{"a", "b"} {
			name := fmt.Sprintf("n%d%s", i, side)
			docs = append(docs, ofMesh("VirtualNode", name, "listeners: [{portMapping: {port: 80, protocol: http}}], backends: ["+backends+"]"),
				own("Binding", name, fmt.Sprintf("group: g, mesh: m, virtualNode: %s, selectors: [\"unix:uid:%d\", \"unix:path:/%s\"]", name, i, side)))
			backends = ""
		}
		docs = append(docs, weight(i, 90), ofMesh("VirtualService", fmt.Sprintf("s%d", i), fmt.Sprintf("provider: {virtualRouter: {virtualRouterRef: {name: r%d}}}", i)))
	}
	return strings.Join(docs, "")
}

func weight(i, of int) string {
	return ofMesh("VirtualRouter", fmt.Sprintf("r%d", i), fmt.Sprintf(
		"listeners: [{portMapping: {port: 80, protocol: http}}], routes: [{name: all, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: n%da}, weight: %d}, {virtualNodeRef: {name: n%db}, weight: 10}]}}}]", i, of, i))
}

// writesOf are those of the objects that are new or changed.
func writesOf(m *model, objects []*kinds.Object) (writes []store.Write) {
	for _, o := range objects {
		if k := o.Key(); !o.SameAs(m.objects.Get(k)) {
			writes = append(writes, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Manifest: o.Encode()}})
		}
	}
	return writes
}

func TestAWeightAmongThousandServicesMakesOneObjectAnew(t *testing.T) {
	m := modelOf(t, services(1000))
	in := understood(t, m, weight(7, 90)+weight(8, 50)+weight(9, 90)) // one of the three is new
	next := m.patched(in, nil, nil)
	if next == nil {
		t.Fatal("not taken")
	}
	writes := writesOf(m, in)
	stored, err := m.written(writes, next)
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []*model{next, stored} {
		if got := slices.Collect(now.objects.Differ(m.objects)); !slices.Equal(got, []kinds.Key{{Kind: string(mesh.KindVirtualRouter), Mesh: "m", Name: "r8"}}) {
			t.Errorf("objects that are others: %v", got)
		}
		made := 0
		for _, r := range now.graph.Routers("m") {
			if r != m.graph.Router(mesh.NameOf(mesh.KindVirtualRouter, "m", r.Name)) {
				made++
			}
		}
		for _, n := range now.graph.Nodes("m") {
			if n != m.graph.Node(n.Ref) {
				made++
			}
		}
		for _, s := range now.graph.Services("m") {
			if s != m.graph.Service(s.GraphName()) {
				made++
			}
		}
		if made != 1 || now.groups.Granted != m.groups.Granted || now.groups.Hosts != m.groups.Hosts {
			t.Errorf("%d objects of the graph were made anew, want 1", made)
		}
	}
	if again := stored.objects.Get(kinds.Key{Kind: string(mesh.KindVirtualRouter), Mesh: "m", Name: "r8"}); again == next.objects.Get(again.Key()) || again.Revision != 1 {
		t.Error("what is served was not read back from what is stored")
	}
	look := func(m *model) views.Look { return views.Look{Model: m, Endpoints: &fleet.Registered{}} }
	if touched := views.Affected(look(m), look(stored)); len(touched) < 5 || len(touched) > 12 {
		t.Errorf("%d nodes are translated again, want those that call the service", len(touched))
	}
}

func TestWhatDoesNotReadBackAsWhatWasCheckedIsNotWritten(t *testing.T) {
	m := modelOf(t, services(20))
	next := m.patched(understood(t, m, weight(1, 50)), nil, nil)
	other := understood(t, m, weight(1, 51))[0]
	write := store.Write{Object: store.Object{Kind: string(mesh.KindVirtualRouter), Mesh: "m", Name: "r1", Manifest: other.Encode()}}
	if _, err := m.written([]store.Write{write}, next); err == nil || !strings.Contains(err.Error(), "reads back as another value") {
		t.Errorf("got %v", err)
	}
	write.Manifest = []byte(strings.ReplaceAll(string(other.Encode()), "r1", "r2"))
	if _, err := m.written([]store.Write{write}, next); err == nil || !strings.Contains(err.Error(), "it reads back as VirtualRouter m/r2") {
		t.Errorf("got %v", err)
	}
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
func firstInForce(t *testing.T, m *model) *policies.Revisions {
	t.Helper()
	p := policies.New(policies.Config{
		TrustDomain: testTD, Shared: &watched.Value[*policies.State]{}, Activating: shared.NewMutex(), Store: noRevisions{}, Clock: time.Now, Changed: func() {}, Log: slog.New(slog.DiscardHandler),
		Look: func() policies.Look { return policies.Look{Graph: m.graph} },
	})
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// manyEntries is a model with n more entries, without a manifest of each.
func manyEntries(t *testing.T, n int) *model {
	t.Helper()
	m := modelOf(t, services(20)+own("Entry", "e0", "group: g, spiffeID: \"spiffe://test.example/0\", selectors: [\"unix:uid:0\"]"))
	first := m.objects.Get(kinds.Key{Kind: kinds.Entry, Name: "e0"})
	all := slices.Collect(maps.Values(maps.Collect(m.objects.All())))
	for i := range n {
		o := *first
		e := o.Value.(identity.Entry)
		e.Name = fmt.Sprintf("x%d", i)
		d := *first.Doc
		d.Name, o.Doc, o.Value = e.Name, &d, e
		all = append(all, &o)
	}
	m, err := newModel(testTD, 1, all)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// issuesNames issues the name that is asked for.
type issuesNames struct{}

func (issuesNames) Issue(_ context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
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
	model     *model
	endpoints *fleet.Endpoints
	views     *views.Views
	by        map[string]*ads.View // by virtual node, and the agent's
}

// viewsOf are followed by the agent and by a proxy of each virtual node, except some.
func viewsOf(t *testing.T, m *model, except ...string) *followed {
	t.Helper()
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	f := &followed{
		t: t, model: m, by: map[string]*ads.View{},
		endpoints: fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: everywhere{}, Clock: time.Now}),
	}
	counted := newMetrics()
	f.views = views.New(views.Config{
		TrustDomain: testTD, SVIDLifetime: time.Hour, PostQuantum: func(string) bool { return false }, Log: slog.New(slog.DiscardHandler),
		Metrics: views.Metrics{Published: counted.published, BuildErrors: counted.buildErrors, Rebuild: counted.rebuild},
	}, sources{func() *model { return m }, func() issuance.Roots { return issuance.Roots{} }, rosterOf(t, agentX.Agent), f.endpoints, firstInForce(t, m), &issuers.Keys{}}, anyone{}, watched.NewSignal())
	f.follow("agent", &corev3.Node{Id: agentX.ID.String()})
	for _, n := range m.graph.Nodes("m") {
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
			for n := range f.model.graph.Reaching(mesh.NodeName(proxy.Node("m", "n7a"))) {
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

// A view that is made between two changes, the second of which takes the first
// back, is not left with the first.
func TestAViewThatIsMadeBetweenTwoChangesIsMadeAgain(t *testing.T) {
	const node = "n6a" // calls the service that n7a is behind
	m := modelOf(t, services(20))
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
	f := viewsOf(t, modelOf(t, services(20)))
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
