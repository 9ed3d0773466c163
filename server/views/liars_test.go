package views

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/refused"
)

// silent is a stream of an agent that follows node a and says nothing more.
type silent struct {
	grpc.ServerStream

	ctx   context.Context //nolint:containedctx // grpc.ServerStream's own contract
	shape proxy.Shape
	asked bool
}

func (s *silent) Context() context.Context                       { return s.ctx }
func (s *silent) SendMsg(any) error                              { return nil }
func (s *silent) Send(*discoveryv3.DeltaDiscoveryResponse) error { return nil }
func (s *silent) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	if s.asked {
		<-s.ctx.Done()
		return nil, s.ctx.Err()
	}
	s.asked = true
	return &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "mesh/m/virtualNode/a", Metadata: s.shape.Metadata()}, TypeUrl: ads.ClusterType}, nil
}

// stand has agents follow node a, whose view in this shape is returned, until the test ends.
func stand(t *testing.T, v *Views, shape proxy.Shape, agents ...string) *ads.View {
	t.Helper()
	server := &ads.Server{Views: v, Peer: func(ctx context.Context) string { name, _ := ctx.Value(callerKey{}).(string); return name }}
	var view *ads.View
	for _, name := range agents {
		var err error
		if view, err = v.View(context.WithValue(t.Context(), callerKey{}, name), &corev3.Node{Id: "mesh/m/virtualNode/a", Metadata: shape.Metadata()}); err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(context.WithValue(context.Background(), callerKey{}, name))
		done := make(chan struct{})
		go func() { defer close(done); _ = server.DeltaAggregatedResources(&silent{ctx: ctx, shape: shape}) }()
		t.Cleanup(func() { end(); <-done })
		for !view.FollowedBy(name) {
			time.Sleep(time.Millisecond)
		}
	}
	return view
}

// two agents follow node a, and say that their proxies have what there is.
type two struct {
	t *testing.T
	s *source
	v *Views
	a *ads.View
}

func twoOf(t *testing.T) *two {
	t.Helper()
	s := sourceOf(t)
	w := &two{t: t, s: s, v: viewsOf(s)}
	w.a = stand(t, w.v, anyShape, "one", "two")
	w.v.Rebuild(t.Context(), nil)
	t.Cleanup(w.v.stop)
	for _, name := range []string{"one", "two"} {
		w.says(name, w.a.Set(), 1)
	}
	w.v.hear(t.Context())
	return w
}

// says reports that so many proxies of an agent have answered a set, and refused some of it.
func (w *two) says(agent string, set *ads.Set, proxies int, refused ...*ads.Resource) {
	f := Following{Node: proxy.Node("m", "a"), Version: viewVersion(set), Proxies: proxies}
	for _, r := range refused {
		f.Rejected = append(f.Rejected, &api.ResourceStatus{TypeUrl: r.Type, Name: r.Name, Version: r.Version, Message: "no"})
	}
	w.v.heard.Cost(agent, 0) // it rests no more
	w.v.Reported(agent, []Following{f})
}

// changes has b somewhere else, and returns who has that first.
func (w *two) changes(host string) (r *rollout, first, second string) {
	w.t.Helper()
	changed(w.t, w.s, w.v, host)
	r = w.v.rollouts[proxy.Node("m", "a")]
	if r == nil || calls(w.t, w.a) == host {
		w.t.Fatal("nobody has it first")
	}
	if r.agent == "one" {
		return r, "one", "two"
	}
	return r, "two", "one"
}

// A9-36: what its agent says once is heard, whatever another one says in the same moment.
func TestAnAnswerIsHeardThoughAnotherAgentRefusesSomethingThen(t *testing.T) {
	w := twoOf(t)
	for i := range 20 { // they are heard in any order
		host := fmt.Sprintf("b%d.internal", i)
		r, first, liar := w.changes(host)
		w.says(liar, w.a.Set(), 1, w.v.rollouts[proxy.Node("m", "a")].set.Type(ads.ClusterType)...)
		w.says(first, r.set, 1)
		w.v.hear(t.Context())
		if at := calls(t, w.a); at != host {
			t.Fatalf("%s has answered, and all are sent to %q", first, at)
		}
		w.says(liar, w.a.Set(), 1)
		w.v.hear(t.Context())
	}
}

// A9-36: each refusal began the second anew in which the first agent may answer.
func TestWhoRefusesOneThingAfterTheOtherDelaysNothingLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := twoOf(t)
		r, mute, liar := w.changes("b.next")
		var all []*ads.Resource
		for _, typeURL := range []string{ads.ClusterType, ads.ListenerType, ads.RouteType} {
			all = slices.Concat(all, r.set.Type(typeURL))
		}
		for i, begun := 0, time.Now(); time.Since(begun) < canaryBound; i++ {
			time.Sleep(canaryBound / 4)
			w.says(liar, w.a.Set(), 1, all[i])
			w.v.hear(t.Context())
		}
		if synctest.Wait(); calls(t, w.a) != "b.next" {
			t.Errorf("%s says nothing for a second, and all are sent to %q", mute, calls(t, w.a))
		}
	})
}

// A9-35: one agent, whose proxies ended twice, was counted as two.
func TestOneAgentWhoseProxiesEndTwiceIsNotTwo(t *testing.T) {
	w := twoOf(t)
	before := w.a.Set()
	_, first, second := w.changes("b.next")
	w.says(first, before, 0)
	w.v.hear(t.Context())
	w.says(first, before, 1) // they are there again
	w.v.Left(second, func() bool { return false })
	w.v.hear(t.Context())
	w.says(first, before, 0)
	w.v.hear(t.Context())
	if at := calls(t, w.a); at != "b.next" || w.v.refused.Count() > 0 {
		t.Errorf("all are sent to %q, and %d refusals are known", at, w.v.refused.Count())
	}
}

// A9-37: reports of 1 MiB, 50 a second (a third of this), of what no view has, kept what operators and other agents
// wait for.
func TestWhatAgentsSayCostsLittleHoweverMuchItIs(t *testing.T) {
	w := twoOf(t)
	for i := range 100 { // as many as an agent may have made
		shape := anyShape
		shape.Bind = fmt.Sprintf("127.0.1.%d", i+1)
		if _, err := w.v.View(context.WithValue(t.Context(), callerKey{}, "two"), &corev3.Node{Id: "mesh/m/virtualNode/a", Metadata: shape.Metadata()}); err != nil {
			t.Fatal(err)
		}
	}
	var list []Following
	for i := range 1000 {
		f := Following{Node: proxy.Node("m", "a"), Version: fmt.Sprint(i), Proxies: 1}
		for j := range 20 {
			f.Rejected = append(f.Rejected, &api.ResourceStatus{TypeUrl: ads.ClusterType, Name: fmt.Sprint("none", i, j), Version: "0123456789abcdef", Message: "no"})
		}
		list = append(list, f)
	}
	least := time.Hour
	for range 5 { // on a busy host one look takes more than its part
		w.v.heard.Cost("two", 0)
		w.v.Reported("two", list)
		begun := cpu(t)
		w.v.hear(t.Context())
		least = min(least, cpu(t)-begun)
	}
	if least > 250*time.Millisecond {
		t.Errorf("it took %v", least)
	}
}

// N15-1: whoever had said of 10,000 resources that its proxies refused them had the refusals of all others ignored.
func TestThereIsRoomForRefusalsWhateverOneAgentSays(t *testing.T) {
	w := twoOf(t)
	node := proxy.Node("m", "a")
	r, _, _ := w.changes("b.next")
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	room := w.v.refused.Room()
	for i := 0; room.Take("two"); i++ {
		w.v.refused.Add(refused.Refusal{Node: node, Agent: "two", Type: ads.ClusterType, Name: "none", Version: fmt.Sprint(i)})
	}
	cluster := r.set.Type(ads.ClusterType)[0]
	w.says("two", w.a.Set(), 1, cluster)
	w.says("one", w.a.Set(), 1, cluster)
	h := hearing{v: w.v}
	of := w.v.offerOf(node)
	for agent, want := range map[string]int{"two": 0, "one": 1} {
		if found := w.v.refuses(agent, w.v.heard.Of(agent)[0], of, h.take); len(found) != want {
			t.Errorf("%d refusals of %s are kept, want %d", len(found), agent, want)
		}
	}
}

// What ended the proxies of two agents is for all where no refusal of it can be kept.
func TestAChangeThatEndedProxiesIsForAllWhereThereIsNoRoom(t *testing.T) {
	w := twoOf(t)
	r, _, second := w.changes("b.next")
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	r.tries[second] = try{lost: true}
	if found := w.v.lose(proxy.Node("m", "a"), r, true, func(string) bool { return false }); len(found) > 0 || calls(t, w.a) != "b.next" {
		t.Errorf("%d refusals are kept, and all are sent to %q", len(found), calls(t, w.a))
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
