package ordered_test

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"signet.example/internal/ordered"
)

// number counts how often keys are compared, which is how many nodes are visited.
type number int

var compared int

func (n number) Compare(o number) int {
	compared++
	return cmp.Compare(n, o)
}

type numbers = ordered.Map[number, int]

func TestAMapIsWhatItsChangesMadeOfItAndTheOldOneStaysAsItWas(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var m numbers
	want := map[number]int{}
	for range 5000 {
		k, v := number(r.IntN(300)), r.IntN(3)
		before, had := m, maps.Clone(want)
		if r.IntN(2) == 0 {
			m, want[k] = m.With(k, v), v
		} else {
			m = m.Without(k)
			delete(want, k)
		}
		if got := maps.Collect(before.All()); !maps.Equal(got, had) {
			t.Fatalf("the map before changed: %v, want %v", got, had)
		}
		if v, ok := m.Find(k); ok != (want[k] == v && has(want, k)) || m.Get(k) != want[k] {
			t.Fatalf("%d: got %d, %t", k, v, ok)
		}
		if (m == before) != maps.Equal(want, had) {
			t.Fatalf("nothing changed: %t, and it is another map: %t", maps.Equal(want, had), m != before)
		}
	}
	if got := maps.Collect(m.All()); !maps.Equal(got, want) || m.Empty() {
		t.Fatalf("got %v, want %v", got, want)
	}
	if !reflect.DeepEqual(m, of(want)) {
		t.Error("its shape depends on how it was made")
	}
	var keys []number
	for k := range m.From(100) {
		keys = append(keys, k)
	}
	all := slices.Sorted(maps.Keys(want))
	first, _ := slices.BinarySearch(all, 100)
	if !slices.Equal(keys, all[first:]) {
		t.Errorf("from 100: %v", keys)
	}
	for k := range m.All() {
		if k != all[0] {
			t.Error("the first is not the lowest")
		}
		break
	}
}

// of is made in the order of the keys, without a key that goes.
func of(all map[number]int) (m numbers) {
	for _, k := range slices.Sorted(maps.Keys(all)) {
		m = m.With(k, all[k])
	}
	return m
}

func has(m map[number]int, k number) bool {
	_, ok := m[k]
	return ok
}

func TestTheDifferenceOfTwoMapsIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		a, b := map[number]int{}, map[number]int{}
		for range r.IntN(40) {
			a[number(r.IntN(40))] = r.IntN(3)
		}
		from, to := of(a), of(b) // nothing of these two is shared
		if r.IntN(2) == 0 {
			b, to = maps.Clone(a), from
		}
		for range r.IntN(20) {
			k, v := number(r.IntN(40)), r.IntN(3)
			b[k], to = v, to.With(k, v)
			if d := number(r.IntN(40)); r.IntN(2) == 0 {
				to = to.Without(d)
				delete(b, d)
			}
		}
		var want []number
		for k := range number(40) {
			va, inA := a[k]
			if vb, inB := b[k]; inA != inB || va != vb {
				want = append(want, k)
			}
		}
		if got := slices.Collect(to.Differ(from)); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if got := slices.Collect(from.Differ(to)); !slices.Equal(got, want) {
			t.Fatalf("the other way round: got %v, want %v", got, want)
		}
	}
}

func TestAChangeAndADifferenceVisitTheLogarithmOfTheSize(t *testing.T) {
	work := func(size int) int {
		all := map[number]int{}
		for k := range size {
			all[number(2*k)] = k
		}
		m := of(all)
		compared = 0
		for k := range 100 {
			at := number(2 * k * size / 100)
			next := m.With(at, -1).With(at+1, -1).Without(at + 2)
			m.Get(at)
			if got := len(slices.Collect(next.Differ(m))); got != 3 {
				t.Fatalf("%d keys differ, want 3", got)
			}
		}
		return compared / 100
	}
	small, large := work(1000), work(100_000)
	t.Logf("keys compared in a change of three and its difference: %d of 1,000, %d of 100,000", small, large)
	if large > 3*small {
		t.Errorf("%d keys compared in 100,000, %d in 1,000", large, small)
	}
}
