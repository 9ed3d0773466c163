package views

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/refused"
)

// Without it each change while something is withheld would leave its names behind.
func TestNamesOfFilesAreThoseOfWhatIsKept(t *testing.T) {
	set := func(files []string, clusters ...*ads.Resource) *ads.Set {
		s, err := ads.NewSet(clusters...)
		if err != nil {
			t.Fatal(err)
		}
		s, err = closeView(s, &api.View{Name: "n", TlsFiles: files}, nodeTypes)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kept := &ads.Resource{Type: ads.ClusterType, Name: "kept", Version: "1", Body: []byte("… file:/keys/kept.pem …")}
	now := &ads.Resource{Type: ads.ClusterType, Name: "now", Version: "1", Body: []byte("… file:/keys/now.pem …")}
	last := set([]string{"file:/keys/kept.pem", "file:/keys/gone.pem"}, kept)
	got := joined(set([]string{"file:/keys/now.pem"}, now), last, set(nil, kept, now)).GetTlsFiles()
	if !slices.Equal(got, []string{"file:/keys/now.pem", "file:/keys/kept.pem"}) {
		t.Errorf("%q", got)
	}
}

// changed has node b somewhere else, for views of which node a follows one.
func changed(t *testing.T, s *source, v *Views, host string) {
	t.Helper()
	s.look.Model = storedOf(t, strings.Replace(manifests, "b.internal", host, 1))
	v.Rebuild(t.Context(), nil)
}

// calls is where the proxies of a view of node a find b, "" for nowhere.
func calls(t *testing.T, a *ads.View) string {
	t.Helper()
	for _, r := range a.Set().Type(ads.ClusterType) {
		var c clusterv3.Cluster
		if err := proto.Unmarshal(r.Body, &c); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(c.GetName(), "cds_egress_m_b_") {
			return c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
		}
	}
	return ""
}

// refusing is what a proxy of node a says that refuses where b is now.
func refusing(a *ads.View) Following {
	f := Following{Node: proxy.Node("m", "a"), Version: viewVersion(a.Set()), Proxies: 1}
	for _, r := range a.Set().Type(ads.ClusterType) {
		if strings.HasPrefix(r.Name, "cds_egress_m_b_") {
			f.Rejected = append(f.Rejected, &api.ResourceStatus{TypeUrl: r.Type, Name: r.Name, Version: r.Version, Message: "no"})
		}
	}
	return f
}

// answers has an answer of proxies noted.
func answers(v *Views, f Following) { v.answered(f, v.offerOf(f.Node)) }

// refuse has what f refuses withheld.
func refuse(t *testing.T, s *source, v *Views, f Following) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	answers(v, f)
	for _, j := range f.Rejected {
		v.refuse(refused.Refusal{Node: f.Node, Agent: "one", Type: j.GetTypeUrl(), Name: j.GetName(), Version: j.GetVersion(), Form: j.GetVersion(), Message: j.GetMessage()})
	}
	for key := range v.nodes {
		v.behind[key] = true
	}
	v.rebuildNodes(t.Context(), s.look.nodeInputs(), nil)
}

// Its proxies still run what they had in the place of what they refused.
func TestWhoComesBackAfterLongKeepsWhatItHasInThePlaceOfWhatItRefused(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	a, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
	v.Rebuild(t.Context(), nil)
	answers(v, Following{Node: proxy.Node("m", "a"), Version: viewVersion(a.Set()), Proxies: 1})
	changed(t, s, v, "b.bad")
	refuse(t, s, v, refusing(a))
	key := Key{proxy.Node("m", "a"), anyShape}
	idle := func() {
		for _, k := range v.nodes {
			k.used = time.Now().Add(-2 * viewIdle)
		}
		v.release()
	}
	idle()
	if a, err = follow(t, v, "one", "mesh/m/virtualNode/a"); err != nil {
		t.Fatal(err)
	}
	if at := calls(t, a); at != "b.internal" {
		t.Errorf("after an outage it is sent to %q", at)
	}
	changed(t, s, v, "b.good")
	if idle(); v.nodes[key] != nil {
		t.Error("a view that lacks nothing is kept, and nobody follows it")
	}
}

// One whose host has a port taken refuses something for ever, and takes the rest all the same.
func TestWhatIsTakenBesideARefusalIsWhatStaysNext(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	a, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
	v.Rebuild(t.Context(), nil)
	answers(v, Following{Node: proxy.Node("m", "a"), Version: viewVersion(a.Set()), Proxies: 1})
	changed(t, s, v, "b.good")
	listener := a.Set().Type(ads.ListenerType)[0]
	taken := &api.ResourceStatus{TypeUrl: listener.Type, Name: listener.Name, Version: listener.Version, Message: "cannot bind: Address already in use"}
	answers(v, Following{Node: proxy.Node("m", "a"), Version: viewVersion(a.Set()), Proxies: 1, Rejected: []*api.ResourceStatus{taken}})
	changed(t, s, v, "b.bad")
	refuse(t, s, v, refusing(a))
	if at := calls(t, a); at != "b.good" {
		t.Errorf("it is sent to %q", at)
	}
	if r := a.Set().Get(listener.Type, listener.Name); r == nil || r.Version != listener.Version {
		t.Error("what one host cannot have is gone for all")
	}
}

// What is kept of the last run is in memory, and in the file's bound, until it is of no use.
func TestWhatViewsHadInTheLastRunIsKeptUntilTheyAreMade(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	had := func(node string) Key { return Key{proxy.Node("m", node), anyShape} }
	v.last = map[Key]refused.Had{had("a"): {}, had("b"): {}, had("gone"): {}}
	v.Rebuild(t.Context(), nil)
	if len(v.last) != 2 || !has(v, had("a")) || !has(v, had("b")) {
		t.Errorf("kept of %d views", len(v.last))
	}
	if _, err := follow(t, v, "one", "mesh/m/virtualNode/a"); err != nil {
		t.Fatal(err)
	}
	if v.Rebuild(t.Context(), nil); len(v.last) != 1 || !has(v, had("b")) {
		t.Errorf("kept of %d views", len(v.last))
	}
}

func has(v *Views, key Key) bool {
	_, ok := v.last[key]
	return ok
}

// What came in the pause after a write is written after it, whatever else happens, and at the latest when the server stops.
func TestWhatIsRefusedInThePauseAfterAWriteIsWrittenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := viewsOf(sourceOf(t))
		v.cfg.Memory = filepath.Join(t.TempDir(), "refused.json")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()
		n := 0
		refuse := func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			n++
			v.refuse(refused.Refusal{Node: proxy.Node("m", "a"), Agent: "one", Type: "t", Name: "n", Version: fmt.Sprint(n)})
			v.Reported("one", nil) // wakes Run
		}
		written := func() int {
			synctest.Wait()
			all, _, err := refused.Read(v.cfg.Memory)
			if err != nil {
				t.Fatal(err)
			}
			return all.Count()
		}
		refuse()
		first := written()
		refuse()
		second := written()
		time.Sleep(2 * time.Second)
		third := written()
		refuse()
		fourth := written()
		refuse()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got, want := [...]int{first, second, third, fourth, written()}, [...]int{1, 1, 2, 3, 4}; got != want {
			t.Errorf("written are %v, want %v", got, want)
		}
	})
}

// Without the file the next run of the server would have all of them refuse it once more.
func TestRefusalsThatCannotBeRememberedAreTold(t *testing.T) {
	s := sourceOf(t)
	v := viewsOf(s)
	var log bytes.Buffer
	v.cfg.Log, v.cfg.Memory = slog.New(slog.NewTextHandler(&log, nil)), filepath.Join(t.TempDir(), "gone", "refused.json")
	a, err := follow(t, v, "one", "mesh/m/virtualNode/a")
	if err != nil {
		t.Fatal(err)
	}
	v.Rebuild(t.Context(), nil)
	answers(v, Following{Node: proxy.Node("m", "a"), Version: viewVersion(a.Set()), Proxies: 1})
	if v.save(t.Context()); log.Len() > 0 {
		t.Errorf("of nothing: %s", &log)
	}
	changed(t, s, v, "b.bad")
	refuse(t, s, v, refusing(a))
	if v.save(t.Context()); strings.Count(log.String(), "what proxies refused is not remembered over a restart") != 1 || !strings.Contains(log.String(), v.cfg.Memory) {
		t.Errorf("it says %q", &log)
	}
	v.cfg.Memory, v.keeper = filepath.Join(t.TempDir(), "refused.json"), refused.Keeper{} // half a minute later
	v.save(t.Context())
	next := viewsOf(s)
	next.cfg.Memory = v.cfg.Memory
	if err := next.Remember(); err != nil || next.refused.Count() == 0 || next.last[Key{proxy.Node("m", "a"), anyShape}].Agent != "one" {
		t.Errorf("the next run remembers %d, %v", next.refused.Count(), err)
	}
}
