package views

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
)

var td = spiffeid.RequireTrustDomainFromString("test.example")

// stored is a model that grants what a test says.
type stored struct {
	*model.Model
	grants granted
}

func (s *stored) Managed(proxy.Ref) bool            { return false }
func (s *stored) Rebound(Model) iter.Seq[proxy.Ref] { return func(func(proxy.Ref) bool) {} }
func (s *stored) Grants() Grants                    { return s.grants }

// granted is the names of what each group may be.
type granted struct {
	groups ordered.Map[ordered.String, string]
}

func (g granted) Of(group string) (version any, resources iter.Seq[*ads.Resource]) {
	names := g.groups.Get(ordered.String(group))
	return names, func(yield func(*ads.Resource) bool) {
		for name := range strings.FieldsSeq(names) {
			r, err := ads.NewResource(ads.EntryType, name, &api.Entry{Name: name})
			if err == nil && !yield(r) {
				return
			}
		}
	}
}

// manifests of a mesh in which a calls b.
const manifests = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: m}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: a}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  backends: [{virtualService: {virtualServiceRef: {name: b}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: b}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  serviceDiscovery: {dns: {hostname: b.internal}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: b}
spec: {provider: {virtualNode: {virtualNodeRef: {name: b}}}}
`

func storedOf(t *testing.T, manifests string) *stored {
	t.Helper()
	return &stored{Model: modeltest.Of(t, manifests)}
}

// source is what views are made of, and who there is.
type source struct {
	look   Look
	groups map[string]string // by agent
}

func (s *source) Look() Look { return s.look }

func (s *source) Group(agent string) (string, error) {
	if group, ok := s.groups[agent]; ok {
		return group, nil
	}
	return "", fault.New(fault.Identity, "nobody knows %s", agent)
}

type callerKey struct{}

// access lets the agents of its context follow everything but the virtual node "b".
type access struct{}

func (access) Review() {}

func (access) Follower(ctx context.Context) (Follower, error) {
	if name, ok := ctx.Value(callerKey{}).(string); ok {
		return agent(name), nil
	}
	return nil, fault.Identity
}

type agent string

func (a agent) Agent() string { return string(a) }
func (a agent) ID() spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://test.example/signet/agent/" + string(a))
}
func (a agent) LogsTo(dir string) {}

func (a agent) Follow(node proxy.Ref) error {
	if node.Name == "b" {
		return fault.Denied
	}
	return nil
}

func viewsOf(s *source) *Views { return newViews(s, access{}) }

func newViews(s Source, a Access) *Views {
	counter := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }
	return New(Config{
		TrustDomain: td, SVIDLifetime: time.Hour, PostQuantum: func(string) bool { return false }, Log: slog.New(slog.DiscardHandler),
		Metrics: Metrics{Published: counter(), BuildErrors: counter(), Rebuild: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "y"})},
	}, s, a, watched.NewSignal())
}

func sourceOf(t *testing.T) *source {
	t.Helper()
	return &source{
		look:   Look{Model: storedOf(t, manifests), Endpoints: &fleet.Registered{}, Policy: Policy{Current: &api.PolicyRevision{Id: "p"}, Stamp: "p"}, Roots: &api.Bundle{}},
		groups: map[string]string{"one": "front", "two": "back"},
	}
}

// follow is the view that an agent is given for a node id.
func follow(t *testing.T, v *Views, name, id string) (*ads.View, error) {
	t.Helper()
	shape := anyShape
	return v.View(context.WithValue(t.Context(), callerKey{}, name), &corev3.Node{Id: id, Metadata: shape.Metadata()})
}

func TestWhatOneGroupIsGrantedIsToldItAndNobodyElse(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	one, err := follow(t, v, "one", agent("one").ID().String())
	if err != nil {
		t.Fatal(err)
	}
	two, err := follow(t, v, "two", agent("two").ID().String())
	if err != nil {
		t.Fatal(err)
	}
	v.Rebuild(t.Context(), nil)
	before, all := two.Set(), v.toAll
	next := *s.look.Model.(*stored)
	next.grants.groups = next.grants.groups.With("front", "job web")
	s.look.Model = &next
	v.Rebuild(t.Context(), nil)
	if got := one.Set().Type(ads.EntryType); len(got) != 2 {
		t.Errorf("group front is told %v", got)
	}
	if two.Set() != before || v.toAll != all {
		t.Error("what nothing changed in was made again")
	}
	delete(s.groups, "two")
	s.look.Roster++
	v.Rebuild(t.Context(), nil)
	if _, err := follow(t, v, "two", agent("two").ID().String()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("an agent that is not to be served any more: %v", err)
	}
}

func TestAViewIsGivenByWhatAccessSaysAndNotByTheNodeID(t *testing.T) {
	v := viewsOf(sourceOf(t))
	for id, want := range map[string]codes.Code{
		"mesh/m/virtualNode/a":     codes.OK,
		"mesh/m/virtualNode/b":     codes.PermissionDenied,
		"nothing":                  codes.PermissionDenied,
		agent("two").ID().String(): codes.PermissionDenied, // another's own
	} {
		if _, err := follow(t, v, "one", id); status.Code(err) != want {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := v.View(t.Context(), &corev3.Node{Id: "mesh/m/virtualNode/a"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("who was not let in: %v", err)
	}
}

func TestAChangeTriesAServiceOnceForAllWhoCallIt(t *testing.T) {
	work := func(callers, routes int) float64 {
		mesh := modeltest.Mesh + modeltest.OfMesh("VirtualNode", "n", "listeners: [{portMapping: {port: 80, protocol: http}}]") +
			modeltest.OfMesh("VirtualService", "s", "provider: {virtualRouter: {virtualRouterRef: {name: r}}}")
		var all strings.Builder
		for i := range routes {
			fmt.Fprintf(&all, "{name: r%d, httpRoute: {match: {prefix: /r%d}, action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}}}, ", i, i)
		}
		mesh += modeltest.OfMesh("VirtualRouter", "r", "listeners: [{portMapping: {port: 80, protocol: http}}], routes: ["+all.String()+"]")
		for i := range callers {
			mesh += modeltest.OfMesh("VirtualNode", fmt.Sprint("c", i), "listeners: [{portMapping: {port: 80, protocol: http}}], backends: [{virtualService: {virtualServiceRef: {name: s}}}]")
		}
		s := sourceOf(t)
		v, next := viewsOf(s), storedOf(t, mesh)
		return testing.AllocsPerRun(5, func() {
			v.Try(s.look.Model, next, func(at proxy.Ref, err error) { t.Errorf("%s: %v", at, err) })
		})
	}
	one, many := work(1, 42)-work(1, 2), work(20, 42)-work(20, 2)
	t.Logf("allocations for 40 routes more: %.0f with one caller, %.0f with 20", one, many)
	if many > 5*one {
		t.Errorf("40 routes more cost %.0f allocations with 20 callers, %.0f with one", many, one)
	}
}

func TestWhatWasTriedIsWhatIsPublishedUnlessSomethingElseChanged(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		s := sourceOf(t)
		v := viewsOf(s)
		a, err := follow(t, v, "one", "mesh/m/virtualNode/a")
		if err != nil {
			t.Fatal(err)
		}
		v.Rebuild(t.Context(), nil)
		next := storedOf(t, strings.Replace(manifests, "b.internal", "b.example", 1))
		tried := v.Try(s.look.Model, next, func(at proxy.Ref, err error) { t.Errorf("%s: %v", at, err) })
		key := Key{proxy.Node("m", "a"), anyShape}
		if tried.sets[key] == nil {
			t.Fatal("the view that is followed was not tried")
		}
		mark, err := ads.NewSet() // told from what would be translated again
		if err != nil {
			t.Fatal(err)
		}
		tried.sets[key] = mark
		if s.look.Model = next; meanwhile {
			s.look.Policy.Stamp = "q"
		}
		v.Rebuild(t.Context(), tried)
		if (a.Set().Version() == mark.Version()) == meanwhile {
			t.Errorf("something else changed: %t, and what was tried is published: %t", meanwhile, meanwhile)
		}
		if stale, err := v.Stale(); err != nil || len(stale) > 0 == meanwhile {
			t.Errorf("stale: %v, %v", stale, err)
		}
	}
}

func TestAViewThatCannotBeMadeStaysAsItWas(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	a, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
	before := a.Set()
	v.publish(t.Context(), a, nil, errors.New("cannot be made"))
	if a.Set() != before {
		t.Error("the last good one is gone")
	}
}

func TestTheViewsOfAnAgentAreCountedInAndOut(t *testing.T) {
	v := New(Config{}, nil, nil, nil)
	node := proxy.Node("m", "n")
	key := func(bind string) Key { return Key{node, proxy.Shape{Bind: bind}} }
	for _, bind := range []string{"127.0.0.1", "127.0.0.2"} {
		v.keepNode(key(bind), &keptView{maker: "a"})
	}
	if n := v.byMaker["a"][node].views; n != 2 {
		t.Errorf("%d are counted of 2", n)
	}
	v.dropNode(key("127.0.0.1"))
	v.dropNode(key("127.0.0.1")) // it is gone
	if n := v.byMaker["a"][node].views; n != 1 {
		t.Errorf("%d are counted of 1", n)
	}
	if v.dropNode(key("127.0.0.2")); len(v.byMaker) != 0 {
		t.Errorf("%v are counted of none", v.byMaker)
	}
}

// Shapes cost what a view takes: an agent that is taken over makes up as many as it may.
func TestViewsInManyShapesAreBoundedInBytes(t *testing.T) {
	v := New(Config{}, nil, nil, nil)
	const large = 2 << 20
	keep := func(node proxy.Ref) error {
		if err := v.mayKeep("a", node, large); err != nil {
			return err
		}
		v.keepNode(Key{node, proxy.Shape{Bind: fmt.Sprint(len(v.nodes))}}, &keptView{maker: "a", bytes: large})
		return nil
	}
	n := 0
	for keep(proxy.Node("m", "many")) == nil {
		n++
	}
	if n*large < freeBytes || n*large > freeBytes+2*shapes*large {
		t.Errorf("%d views of %d bytes", n, large)
	}
	if err := v.mayMake("a", proxy.Node("m", "many")); err == nil {
		t.Error("one more is made before it is refused")
	}
	for i := range 500 { // an agent of 500 nodes has one of each
		if err := keep(proxy.Node("m", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.mayKeep("another", proxy.Node("m", "many"), large); err != nil {
		t.Errorf("another agent: %v", err)
	}
}

// Who waited while others were made views, and is gone: nobody follows what would be made.
func TestNoViewIsMadeForAStreamThatHasEnded(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	ctx, end := context.WithCancel(t.Context())
	end()
	if _, err := v.nodeView(ctx, "one", Key{Node: proxy.Node("m", "a")}); !errors.Is(err, context.Canceled) || len(v.nodes) != 0 {
		t.Errorf("%d views, %v", len(v.nodes), err)
	}
}

// An operator's change, such as a ban, waits for one stream and not for all who ask; an
// agent's streams wait for each other, and not others' for them.
func TestAChangeAndOtherAgentsWaitForOneStreamOfAnAgentAtMost(t *testing.T) {
	v := New(Config{}, nil, nil, nil)
	var order []string
	var mu sync.Mutex
	did := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	first, err := v.ask(t.Context(), "many")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wait := func(agent string) {
		wg.Go(func() {
			end, err := v.ask(t.Context(), agent)
			if err != nil {
				t.Error(err)
				return
			}
			did(agent)
			time.Sleep(5 * time.Millisecond) // as long as one is made
			end()
		})
	}
	for range 50 {
		wait("many")
	}
	time.Sleep(20 * time.Millisecond) // they wait
	wait("other")
	wg.Go(func() {
		v.mu.Lock()
		did("change")
		v.mu.Unlock()
	})
	time.Sleep(20 * time.Millisecond)
	ctx, gone := context.WithCancel(t.Context())
	gone()
	if _, err := v.ask(ctx, "many"); !errors.Is(err, context.Canceled) {
		t.Errorf("a stream that is gone: %v", err)
	}
	first()
	wg.Wait()
	if at := slices.Index(order, "change"); at > 2 {
		t.Errorf("a change waited for %d streams", at)
	}
	if at := slices.Index(order, "other"); at > 4 {
		t.Errorf("another agent's waited for %d of %q", at, order[:at])
	}
	if n := v.asking.Owners(); n != 0 || len(order) != 52 {
		t.Errorf("%d are left, %d went", n, len(order))
	}
}

// Replicas are made views at different times, each by a translation of its own.
func TestReplicasHoldOnceWhatTheyHaveInCommon(t *testing.T) {
	v := viewsOf(sourceOf(t))
	var sets []*ads.Set
	for _, bind := range []string{"127.0.0.2", "127.0.0.3"} {
		shape := anyShape
		shape.Bind = bind
		view, err := v.View(context.WithValue(t.Context(), callerKey{}, "one"), &corev3.Node{Id: "mesh/m/virtualNode/a", Metadata: shape.Metadata()})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, view.Set())
	}
	if sets[0].Version() == sets[1].Version() {
		t.Fatal("they are equal")
	}
	for _, typeURL := range []string{ads.ClusterType, ads.RouteType} {
		if len(sets[0].Type(typeURL)) == 0 {
			t.Errorf("there is no %s", typeURL)
		}
		for _, r := range sets[0].Type(typeURL) {
			if sets[1].Get(typeURL, r.Name) != r {
				t.Errorf("%s %s is there twice", typeURL, r.Name)
			}
		}
	}
}
