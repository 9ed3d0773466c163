package groups

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/proxy"
)

var td = spiffeid.RequireTrustDomainFromString("test.example")

func selectors(t testing.TB, texts ...string) identity.Selectors {
	t.Helper()
	s, err := identity.ParseSelectors(texts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func grant(t testing.TB, value any) *Grant {
	t.Helper()
	g, err := NewGrant(value, 1, td)
	if err != nil || g == nil {
		t.Fatal(g, err)
	}
	return g
}

func entry(t testing.TB, name, group, hint string, has ...string) *Grant {
	return grant(t, identity.Entry{Name: name, Group: group, Hint: hint, ID: spiffeid.RequireFromPath(td, "/"+name), Selectors: selectors(t, has...)})
}

func binding(t testing.TB, name, group, node string, has ...string) *Grant {
	return grant(t, identity.Binding{Name: name, Group: group, VirtualNode: identity.VirtualNodeName{Mesh: "m", Name: node}, Selectors: selectors(t, has...)})
}

// sorted is g with what does not go together in one order: there it is that in which it
// came about.
func sorted(g Groups) Groups {
	for name, on := range g.Granted.All() {
		next := *on
		next.overlaps.list, next.twins.list = Overlaps(one(on)), SameHints(one(on))
		g.Granted.by = g.Granted.by.With(ordered.String(name), &next)
	}
	return g
}

func one(on *Group) Some {
	return func(yield func(string, *Group) bool) { yield("", on) }
}

func TestGroupsAreWhatIsGrantedWhateverCameAndWent(t *testing.T) {
	for seed := range 50 {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		pick := func(from ...string) string { return from[r.IntN(len(from))] }
		var g Groups
		there := map[string]*Grant{}
		for step := range 100 {
			name, group := fmt.Sprintf("x%d", r.IntN(6)), pick("g1", "g2")
			x := entry(t, name, group, pick("", "a", "b"), "unix:uid:"+pick("1", "2"))
			if r.IntN(2) == 0 {
				x = binding(t, name, group, pick("n1", "n2"), pick("unix:uid:1", "unix:uid:2", "unix:gid:3"))
			}
			g = g.Without(there[x.Name])
			if delete(there, x.Name); r.IntN(3) > 0 {
				g, there[x.Name] = g.With(x), x
			}
			var want Groups
			for _, x := range there {
				want = want.With(x)
			}
			if a, b := sorted(g), sorted(want); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d, step %d: groups are not what is granted:\n%+v\n%+v", seed, step, a, b)
			}
		}
	}
}

func TestAGroupHostsAVirtualNodeWhileABindingSaysSo(t *testing.T) {
	first, second := binding(t, "one", "g", "web", "unix:uid:1"), binding(t, "two", "g", "web", "unix:uid:2")
	g := Groups{}.With(first).With(second)
	web := proxy.Node("m", "web")
	if !g.Hosts.May("g", web) || g.Hosts.May("f", web) || g.Hosts.May("h", web) || !g.Hosts.Any(web) || g.Hosts.Any(proxy.Node("m", "orders")) {
		t.Error("who may host it is not what the bindings say")
	}
	if again := g.With(entry(t, "e", "g", "", "unix:uid:1")); again.Hosts != g.Hosts || again.Granted == g.Granted {
		t.Error("an entry is no change of who hosts, and one of what is granted")
	}
	if g = g.Without(first); !g.Hosts.May("g", web) {
		t.Error("one of two bindings was enough")
	}
	if g = g.Without(second); g.Hosts.Any(web) || g.Granted.Group("g") != nil || g.Hosts != (Hosts{}) || g.Granted != (Granted{}) {
		t.Error("something is left of bindings that are gone")
	}
}

func TestWhatOneProcessCanFitTwiceIsSaidOnce(t *testing.T) {
	g := Groups{}.
		With(binding(t, "b", "g", "orders", "unix:uid:1", "unix:path:/x")).With(binding(t, "a", "g", "web", "unix:uid:1")).
		With(binding(t, "c", "g", "web", "unix:uid:2")).                                                      // another user
		With(binding(t, "d", "other", "orders", "unix:uid:1")).                                               // another group
		With(binding(t, "e", "g", "orders", "signet:proxy:orders")).                                          // an agent's own
		With(entry(t, "f", "g", "h", "unix:uid:1")).With(entry(t, "k", "g", "h", "unix:gid:1")).              // one hint
		With(entry(t, "l", "g", "i", "unix:uid:1")).With(entry(t, "m", "g", "h", "unix:uid:1", "unix:gid:2")) // with f and not with k
	var said []string
	for _, o := range Overlaps(g.Granted.All()) {
		said = append(said, o.First.Name+" "+o.Second.Name)
		if !strings.Contains(o.String(), "every process that the more exact one fits") {
			t.Errorf("%s", o)
		}
	}
	for _, w := range SameHints(g.Granted.All()) {
		said = append(said, w.First.Name+" "+w.Second.Name)
	}
	if want := []string{"a b", "f k", "f m"}; !slices.Equal(said, want) {
		t.Errorf("it names %q, want %q", said, want)
	}
	if list := SameHints(g.Granted.Named(map[string]bool{"other": true, "none": true})); len(list) > 0 {
		t.Errorf("of other groups: %v", list)
	}
	if x, ok := g.Granted.Group("g").Find("binding/a"); !ok || x.Entry.ID.String() != "spiffe://test.example/m/web" {
		t.Errorf("%+v", x)
	}
	if _, ok := g.Granted.Group("nobody's").Find("f"); ok {
		t.Error("a group that is granted nothing has an entry")
	}
}

func TestAHostIsInTheGroupsWhoseSelectorsItHas(t *testing.T) {
	list := []identity.NodeGroup{{Name: "all"}, {Name: "racks", Selectors: selectors(t, "x509pop:subject:cn:rack-1")}, {Name: "row", Selectors: selectors(t, "x509pop:subject:cn:rack-1", "x509pop:subject:ou:row")}}
	p := Groups{}.Placed(slices.Values(list)).Placing
	if got := p.Fitting(selectors(t, "x509pop:subject:cn:rack-1")); !slices.Equal(got, []string{"racks"}) {
		t.Errorf("%q", got)
	}
	if got := p.Fitting(selectors(t, "x509pop:subject:cn:rack-1", "x509pop:subject:ou:row")); !slices.Equal(got, []string{"racks", "row"}) {
		t.Errorf("%q", got)
	}
	if got := p.Fitting(nil); got != nil { // a group without selectors is one of tokens
		t.Errorf("%q", got)
	}
	if !p.Same(Groups{}.Placed(slices.Values(list[1:])).Placing) || p.Same(p[:1]) {
		t.Error("only selectors place")
	}
}
