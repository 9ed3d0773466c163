package views

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
)

// What is served after any changes is what a server that starts then serves of the same store, byte
// for byte. That one makes everything; the one that goes on makes what it takes to be reached by a
// change, of parts that it has, in several ways (docs/decisions/034): each of these must have been
// taken. SOAK=1 is a hundred times as many changes.
func TestWhatIsServedAfterAnyChangesIsWhatAServerServesThatStartsThen(t *testing.T) {
	least, most := uint64(4), uint64(40)
	if os.Getenv("SOAK") == "1" {
		least, most = 600, 600
	}
	w := ways{}
	for seed := uint64(0); seed < least || seed < most && len(w.missing()) > 0; seed++ {
		synctest.Test(t, func(t *testing.T) {
			s := serverOf(t, seed, w)
			for step := range 40 {
				if s.step(); step == 39 {
					s.settle()
				}
				if step%2 == 0 {
					continue // what is wrong may be mended by what comes next, but seldom is
				}
				if differs := s.differs(); len(differs) > 0 {
					t.Fatalf("seed %d, step %d:\n%s", seed, step, strings.Join(differs, "\n"))
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	for _, way := range w.missing() {
		t.Errorf("never: %s (what changes is random_test.go's, and modeltest's)", way)
	}
	for _, way := range slices.Sorted(maps.Keys(w)) {
		t.Logf("%6d %s", w[way], way)
	}
}

// differs are the resources that a server that starts now would serve otherwise, of views that are
// not on their way from host to host, and lack nothing that a proxy refused.
func (s *server) differs() (list []string) {
	rows, revision, err := s.store.Objects(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := model.Load(modeltest.TrustDomain, rows, revision)
	if err != nil {
		s.t.Fatal(err)
	}
	look := s.Look()
	look.Model = viewed{m}
	fresh := newViews(&source{look, s.groups}, access{})
	compare := func(got, want *ads.View, err error) {
		if err != nil {
			s.t.Fatal(err)
		}
		s.ways.took("a view is compared")
		list = append(list, differences(got, want)...)
	}
	for name, k := range s.v.agents {
		want, err := fresh.agentView(s.t.Context(), agent(name))
		compare(k.view, want, err)
	}
	for key, k := range s.v.nodes {
		if len(k.withheld) > 0 {
			s.ways.took("something is withheld")
		} else if s.v.rollouts[key.Node] == nil {
			want, err := fresh.nodeView(s.t.Context(), "x", key)
			compare(k.view, want, err)
		}
	}
	return list
}

// differences are those of two views' sets, by resource.
func differences(got, want *ads.View) (list []string) {
	same := func(a, b *ads.Resource) bool {
		return a != nil && b != nil && a.Version == b.Version && bytes.Equal(a.Body, b.Body)
	}
	seen := map[string]bool{}
	for _, set := range []*ads.Set{got.Set(), want.Set()} {
		for _, typeURL := range set.Types() {
			for _, r := range set.Type(typeURL) {
				a, b := got.Set().Get(typeURL, r.Name), want.Set().Get(typeURL, r.Name)
				if at := typeURL + " " + r.Name; !seen[at] && !same(a, b) {
					seen[at] = true
					list = append(list, fmt.Sprintf("%s: %s: served %t, to be served %t", got.Name(), at, a != nil, b != nil))
				}
			}
		}
	}
	if got.Set().Version() != want.Set().Version() && list == nil {
		list = append(list, got.Name()+": equal sets have different versions")
	}
	return list
}

// ways are those in which views come to what they are, and how often each was taken.
type ways map[string]int

func (w ways) took(way string) { w[way]++ }

// missing are the ways that were not taken.
func (w ways) missing() (list []string) {
	all := []string{
		"a model is made whole", "a model is made of what changes", "a route is another gateway's", "an object is another group's", "an object is another owner's",
		"all views are reached", "some views are reached", "no view is reached", "a view that was behind is made again",
		"what was tried is published", "what was tried is of something else by now", "a service is remembered", "a section is of the past",
		"endpoints are others", "an endpoint is another agent's", "other instances are found", "routes have another stamp",
		"an agent is in another group", "all agents are told something else", "a group is told the same", "a group is told something else",
		"one host has a change first", "a newer change waits", "something is withheld",
	}
	for _, k := range kinds.All() {
		all = append(all, k.Name+" is another one")
		if k.Name != string(mesh.KindMesh) { // all is in it
			all = append(all, k.Name+" is deleted", k.Name+" is new")
		}
	}
	return slices.DeleteFunc(all, func(way string) bool { return w[way] > 0 })
}

// models counts how a model was made of another one, and what its objects are to those of the other.
func (w ways) models(was, is *model.Model) {
	if slices.ContainsFunc(is.Graph().Nodes("m"), func(n *mesh.VirtualNode) bool { return was.Graph().Node(n.Ref) == n }) {
		w.took("a model is made of what changes")
	} else {
		w.took("a model is made whole")
	}
	for k := range is.Objects().Differ(was.Objects()) {
		switch old, now := was.Objects().Get(k), is.Objects().Get(k); {
		case old == nil:
			w.took(k.Kind + " is new")
		case now == nil:
			w.took(k.Kind + " is deleted")
		case string(old.Encode()) == string(now.Encode()):
			w.took("an object is another owner's")
		default:
			w.took(k.Kind + " is another one")
			w.moved(old, now)
		}
	}
}

// moved counts what is another gateway's or group's than before.
func (w ways) moved(old, now *kinds.Object) {
	gateway := func(o *kinds.Object) *mesh.VirtualGatewayRef {
		return o.Resource.Spec.(*mesh.GatewayRouteSpec).VirtualGatewayRef
	}
	switch {
	case now.Resource == nil && !reflect.DeepEqual(old.Refers(), now.Refers()):
		w.took("an object is another group's")
	case now.Resource != nil && now.Resource.Kind == mesh.KindGatewayRoute && !reflect.DeepEqual(gateway(old), gateway(now)):
		w.took("a route is another gateway's")
	}
}

// reached counts which views a change was taken to reach.
func (w ways) reached(a affected) {
	switch {
	case a.everything:
		w.took("all views are reached")
	case len(a.nodes) > 0:
		w.took("some views are reached")
	default:
		w.took("no view is reached")
	}
}

// tried counts what became of what was made before a change was stored.
func (w ways) tried(v *Views, tried *Candidate) {
	if tried == nil {
		return
	}
	if tried.from != v.at {
		w.took("what was tried is of something else by now")
	}
	for key, set := range tried.sets {
		k, r := v.nodes[key], v.rollouts[key.Node]
		if k != nil && k.view.Set() == set || r != nil && r.made[key] == set {
			w.took("what was tried is published")
		}
	}
}

// grouped counts which groups of agents are told the set that they were told before.
func (w ways) grouped(was, is map[string]groupSet) {
	for name, now := range is {
		if old, ok := was[name]; ok && old.set == now.set {
			w.took("a group is told the same")
		} else if ok {
			w.took("a group is told something else")
		}
	}
}

// remembered counts services that were not translated again with one of their callers, and sections that
// were not with their view, given which were remembered before, and returns those that are now.
func (w ways) remembered(v *Views, again affected, before map[any]uintptr) map[any]uintptr {
	now := map[any]uintptr{}
	for sections := reflect.ValueOf(&v.past).Elem().FieldByName("sections").MapRange(); sections.Next(); {
		at := fmt.Sprint(sections.Key())
		if now[at] = sections.Value().Pointer(); now[at] != before[at] {
			continue
		}
		if of := sections.Key().FieldByName("node"); again.everything || again.nodes[refOf(of)] {
			w.took("a section is of the past")
		}
	}
	services := reflect.ValueOf(&v.memory).Elem().FieldByName("services")
	for key := range v.nodes {
		n := v.at.model.Graph().Node(key.Node)
		for _, to := range n.Backends {
			r := services.MapIndex(reflect.ValueOf(to.Service))
			if !r.IsValid() {
				continue
			}
			if now[to.Service] = r.FieldByName("hosts").Pointer(); now[to.Service] == before[to.Service] && (again.everything || again.nodes[n.Ref]) {
				w.took("a service is remembered")
			}
		}
	}
	return now
}

func refOf(v reflect.Value) proxy.Ref {
	return proxy.Ref{Kind: proxy.Kind(v.FieldByName("Kind").String()), Mesh: v.FieldByName("Mesh").String(), Name: v.FieldByName("Name").String()}
}

// endpoints counts what is registered otherwise than before.
func (w ways) endpoints(was, is *fleet.Registered) {
	for _, at := range is.Differ(was) {
		w.took("endpoints are others")
		for _, e := range is.Of(at) {
			if slices.ContainsFunc(was.Of(at), func(old *fleet.Endpoint) bool { return old.Address == e.Address && old.Agent != e.Agent }) {
				w.took("an endpoint is another agent's")
			}
		}
	}
}

// underWay counts changes that are on their way from host to host.
func (w ways) underWay(v *Views) {
	for _, r := range v.rollouts {
		w.took("one host has a change first")
		if r.parked != nil {
			w.took("a newer change waits")
		}
	}
}
