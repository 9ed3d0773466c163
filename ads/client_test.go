package ads_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
)

var followed = []string{cds, eds, lds, rds, ads.BundleType}

// view is a ViewType resource that lists the versions of a set's types.
func view(t *testing.T, s *ads.Set) *ads.Resource {
	t.Helper()
	versions := make(map[string]any)
	for _, typeURL := range followed {
		versions[typeURL] = s.TypeVersion(typeURL)
	}
	m, err := structpb.NewStruct(versions)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ads.NewResource(ads.ViewType, "v", m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// complete is the agent's check, with our view resource.
func complete(t *testing.T) func(*ads.Resource, *ads.Set) bool {
	return func(v *ads.Resource, got *ads.Set) bool { return string(view(t, got).Body) == string(v.Body) }
}

// publishView publishes resources with the view that describes them.
func (w *world) publishView(rs ...*ads.Resource) {
	w.t.Helper()
	w.publish(append(rs, view(w.t, mustSet(w.t, rs...)))...)
}

// follow runs a client that sends its sets to the channel.
func follow(w *world, c *ads.Client) (sets chan *ads.Set, stop func()) {
	sets = make(chan *ads.Set, 100)
	c.Conn, c.Node, c.Types = w.conn, node, followed
	c.Complete = complete(w.t)
	c.OnSet = func(s *ads.Set, _ *ads.Resource) { sets <- s }
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	return sets, func() {
		cancel()
		wg.Wait()
	}
}

func TestClientGetsCompleteSetsWithTheServersVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
		sets, stop := follow(w, &ads.Client{})
		defer stop()
		salted := res(t, eds, "c", "1").Salted("salt")
		w.publishView(res(t, cds, "c", "1"), salted, res(t, lds, "l", "1"))
		got := <-sets
		if want := w.view.Set().Without(ads.ViewType); got.Version() != want.Version() {
			t.Errorf("set %s, want %s", got.Version(), want.Version())
		}
		if v := got.Get(eds, "c").Version; v != salted.Version {
			t.Errorf("the salted version became %s", v)
		}
		w.publishView(res(t, cds, "d", "1"), res(t, ads.BundleType, "b", "1"))
		got = <-sets
		if got.Get(cds, "c") != nil || got.Get(lds, "l") != nil || got.Get(ads.BundleType, "b") == nil || got.Len() != 2 {
			t.Errorf("the set is not what was published: %d resources", got.Len())
		}
		synctest.Wait()
		if len(sets) != 0 {
			t.Error("more sets than publications")
		}
	})
}

func TestClientResumesWithoutResending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
		c := &ads.Client{}
		sets, stop := follow(w, c)
		rs := []*ads.Resource{res(t, cds, "b", "1")}
		for _, n := range names("r", 200) {
			rs = append(rs, res(t, rds, n, "1"))
		}
		w.publishView(append(rs, res(t, cds, "a", "1"))...)
		<-sets
		synctest.Wait()
		stop()
		acked := w.count(ads.Acked)
		w.publishView(append(rs, res(t, cds, "a", "2"))...)

		sets, stop = follow(w, c)
		defer stop()
		got := <-sets
		if want := w.view.Set().Without(ads.ViewType); got.Version() != want.Version() {
			t.Errorf("set %s, want %s", got.Version(), want.Version())
		}
		synctest.Wait()
		if n := w.count(ads.Acked) - acked; n != 2 { // the changed cluster and the view
			t.Errorf("%d resources were sent again", n)
		}
	})
}

func TestClientRefusesAViewThatDescribesAnotherSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
		c := &ads.Client{}
		sets, stop := follow(w, c)
		defer stop()
		w.publish(res(t, cds, "a", "1"), view(t, mustSet(t, res(t, cds, "other", "1"))))
		synctest.Wait()
		if len(sets) != 0 {
			t.Error("an incomplete set was handed on")
		}
		if n := w.count(ads.Rejected); n != 1 {
			t.Errorf("%d refusals, want 1", n)
		}
		w.publishView(res(t, cds, "a", "1"))
		if got := <-sets; got.Len() != 1 {
			t.Errorf("%d resources", got.Len())
		}
	})
}

func TestClientTakesManyResources(t *testing.T) {
	w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
	sets, stop := follow(w, &ads.Client{})
	defer stop()
	var rs []*ads.Resource
	big := strings.Repeat("x", 2000)
	for _, n := range names("r", 3000) {
		rs = append(rs, res(t, cds, n, big), res(t, eds, n, "1"))
	}
	for _, n := range names("r", 500) {
		rs = append(rs, res(t, rds, n, big))
	}
	w.publishView(rs...)
	if got := <-sets; got.Len() != len(rs) {
		t.Errorf("%d resources, want %d", got.Len(), len(rs))
	}
}

func TestClientRunEndsWithTheStream(t *testing.T) {
	w := newWorld(t, ads.Relay)
	c := &ads.Client{Conn: w.conn, Node: nil, Types: followed} // without a node the server ends it
	err := c.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "node") {
		t.Errorf("Run returned %v", err)
	}
}

func TestClientsOfOnePoolShareResources(t *testing.T) {
	pool := new(ads.Pool)
	func() {
		w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
		var got []*ads.Set
		w.publishView(res(t, cds, "a", "1"), res(t, eds, "a", "1"))
		for range 3 {
			sets, stop := follow(w, &ads.Client{Pool: pool})
			got = append(got, <-sets)
			stop()
		}
		for _, s := range got[1:] {
			if !ads.SharesBodies(got[0], s, cds, "a") || !ads.SharesBodies(got[0], s, eds, "a") {
				t.Error("equal resources are held twice")
			}
		}
		if n := pool.Len(); n != 3 {
			t.Errorf("%d resources in the pool, want 3", n)
		}
		runtime.KeepAlive(got)
	}()
	eventually(t, "the pool is empty", func() bool {
		runtime.GC()
		return pool.Len() == 0
	})
}

func TestARelayedSetReachesAProxyUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, down := newWorld(t, ads.Relay, ads.ServerOptions(nil)...), newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		c := &ads.Client{
			Conn: up.conn, Node: node, Types: followed, Complete: complete(t),
			OnSet: func(s *ads.Set, _ *ads.Resource) { down.view.Publish(s) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		proxy := down.connect(true)
		proxy.subscribe(lds)
		proxy.silent()
		for i := range 10 {
			r := res(t, lds, "l", fmt.Sprint(i))
			up.publishView(r)
			a := proxy.of(lds)
			if got := a.Versions["l"]; got != r.Version {
				t.Errorf("version %s, want %s", got, r.Version)
			}
			proxy.ack(a)
		}
	})
}
