package model_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"signet.example/mesh"
	"signet.example/server/groups"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
	"signet.example/store"
)

func TestAChangedModelIsWhatIsMadeOfEverything(t *testing.T) {
	taken, refused := 0, 0
	for seed := range soak(20, 1000) {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		m := modeltest.Of(t, []string{modeltest.Mesh + modeltest.Own("NodeGroup", "g1", "") + modeltest.Own("NodeGroup", "g2", ""), modeltest.Everything()}[seed%2])
		for step := range 60 {
			var put []*kinds.Object
			var remove []kinds.Key
			after := maps.Collect(m.Objects().All())
			for range 1 + r.IntN(3) {
				o := modeltest.Objects(t, m, modeltest.RandomObject(r))[0]
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
			want, err := model.New(modeltest.TrustDomain, 0, slices.Collect(maps.Values(after)))
			got := model.Patched(m, put, remove, nil)
			if (got != nil) != (err == nil) {
				t.Fatalf("seed %d, step %d: everything gives %v, and the change is taken: %t", seed, step, err, got != nil)
			}
			if _, werr := m.With(put, remove...); (werr == nil) != (err == nil) || err != nil && inLines(werr) != inLines(err) {
				t.Fatalf("seed %d, step %d: refused with\n%v\nand not with\n%v", seed, step, werr, err)
			}
			if got == nil {
				refused++
				continue
			}
			taken++
			if !slices.Equal(texts(groups.Overlaps(got.Groups().Granted.All())), texts(groups.Overlaps(want.Groups().Granted.All()))) || !slices.Equal(texts(groups.SameHints(got.Groups().Granted.All())), texts(groups.SameHints(want.Groups().Granted.All()))) {
				t.Fatalf("seed %d, step %d: warnings %v %v, want %v %v", seed, step, groups.Overlaps(got.Groups().Granted.All()), groups.SameHints(got.Groups().Granted.All()), groups.Overlaps(want.Groups().Granted.All()), groups.SameHints(want.Groups().Granted.All()))
			}
			if a, b := model.Settled(got), model.Settled(want); !reflect.DeepEqual(a, b) {
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
	m := modeltest.Of(t, modeltest.Mesh+modeltest.Own("NodeGroup", "g", ""))
	first := weak.Make(m)
	for i := range 3 {
		if m = model.Patched(m, modeltest.Objects(t, m, modeltest.Own("NodeGroup", fmt.Sprintf("g%d", i), "")), nil, nil); m == nil {
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
	m := modeltest.Of(t, modeltest.Mesh+modeltest.Own("NodeGroup", "g", "")+modeltest.OfMesh("VirtualNode", "a", "")+modeltest.OfMesh("VirtualNode", "b", ""))
	binding := func(i int) string {
		return modeltest.Own("Binding", fmt.Sprintf("b%03d", i), fmt.Sprintf("group: g, mesh: m, virtualNode: %s, selectors: ['unix:uid:1']", []string{"a", "b"}[i%2]))
	}
	const n = 60 // 900 pairs
	for i := range n {
		if m = model.Patched(m, modeltest.Objects(t, m, binding(i)), nil, nil); m == nil {
			t.Fatal("not patched")
		}
	}
	if got := len(groups.Overlaps(m.Groups().Granted.All())); got != groups.MostPairs || len(groups.Unlisted(m.Groups().Granted.All())) != 1 {
		t.Fatalf("%d overlaps are listed, and said to be too many in %v", got, groups.Unlisted(m.Groups().Granted.All()))
	}
	for i := range n - 4 { // what is left is four, two of each
		if m = model.Patched(m, nil, []kinds.Key{{Kind: kinds.Binding, Name: fmt.Sprintf("b%03d", i)}}, nil); m == nil {
			t.Fatal("not patched")
		}
	}
	if got := len(groups.Overlaps(m.Groups().Granted.All())); got != 4 || len(groups.Unlisted(m.Groups().Granted.All())) != 0 {
		t.Errorf("%d overlaps are listed, and said to be too many in %v: want the four that there are", got, groups.Unlisted(m.Groups().Granted.All()))
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

func TestAWeightAmongThousandServicesMakesOneObjectAnew(t *testing.T) {
	m := modeltest.Of(t, modeltest.Services(1000))
	in := modeltest.Objects(t, m, modeltest.Weight(7, 90)+modeltest.Weight(8, 50)+modeltest.Weight(9, 90)) // one of the three is new
	next := model.Patched(m, in, nil, nil)
	if next == nil {
		t.Fatal("not taken")
	}
	writes := modeltest.Writes(m, in)
	stored, err := m.Written(writes, next)
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []*model.Model{next, stored} {
		if got := slices.Collect(now.Objects().Differ(m.Objects())); !slices.Equal(got, []kinds.Key{{Kind: string(mesh.KindVirtualRouter), Mesh: "m", Name: "r8"}}) {
			t.Errorf("objects that are others: %v", got)
		}
		made := 0
		for _, r := range now.Graph().Routers("m") {
			if r != m.Graph().Router(mesh.NameOf(mesh.KindVirtualRouter, "m", r.Name)) {
				made++
			}
		}
		for _, n := range now.Graph().Nodes("m") {
			if n != m.Graph().Node(n.Ref) {
				made++
			}
		}
		for _, s := range now.Graph().Services("m") {
			if s != m.Graph().Service(s.GraphName()) {
				made++
			}
		}
		if made != 1 || now.Groups().Granted != m.Groups().Granted || now.Groups().Hosts != m.Groups().Hosts {
			t.Errorf("%d objects of the graph were made anew, want 1", made)
		}
	}
	if again := stored.Objects().Get(kinds.Key{Kind: string(mesh.KindVirtualRouter), Mesh: "m", Name: "r8"}); again == next.Objects().Get(again.Key()) || again.Revision != 1 {
		t.Error("what is served was not read back from what is stored")
	}
}

func TestWhatDoesNotReadBackAsWhatWasCheckedIsNotWritten(t *testing.T) {
	m := modeltest.Of(t, modeltest.Services(20))
	next := model.Patched(m, modeltest.Objects(t, m, modeltest.Weight(1, 50)), nil, nil)
	other := modeltest.Objects(t, m, modeltest.Weight(1, 51))[0]
	write := store.Write{Object: store.Object{Kind: string(mesh.KindVirtualRouter), Mesh: "m", Name: "r1", Manifest: other.Encode()}}
	if _, err := m.Written([]store.Write{write}, next); err == nil || !strings.Contains(err.Error(), "reads back as another value") {
		t.Errorf("got %v", err)
	}
	write.Manifest = []byte(strings.ReplaceAll(string(other.Encode()), "r1", "r2"))
	if _, err := m.Written([]store.Write{write}, next); err == nil || !strings.Contains(err.Error(), "it reads back as VirtualRouter m/r2") {
		t.Errorf("got %v", err)
	}
}
