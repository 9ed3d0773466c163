package overload

import (
	"runtime/debug"
	"testing"
)

func TestThereIsLittleGarbageBesideMuchThatLives(t *testing.T) {
	const limit = 512 << 20
	for live, want := range map[int64]int{0: 400, 8 << 20: 400, 16 << 20: 400, 20 << 20: 300, 32 << 20: 200, 64 << 20: 100, 400 << 20: 100} {
		if got := garbage(live, limit, 400); got != want {
			t.Errorf("%d MiB live: %d %%, not %d", live>>20, got, want)
		}
		if goal := live + live*int64(garbage(live, limit, 400))/100; live < limit/4 && goal > limit*3/4 {
			t.Errorf("%d MiB live: collected at %d MiB", live>>20, goal>>20)
		}
	}
	for _, given := range []int{100, 50, -1} { // who was not given more is left alone
		if got := garbage(400<<20, limit, given); got != given {
			t.Errorf("given %d, %d", given, got)
		}
	}

	defer debug.SetGCPercent(debug.SetGCPercent(400))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	g := New(limit, nil, nil)
	for live, want := range map[int64]int{64 << 20: 100, 1 << 20: 400} {
		g.collect(live)
		if got := debug.SetGCPercent(want); got != want {
			t.Errorf("%d MiB live: the collector has %d %%, not %d", live>>20, got, want)
		}
	}
}
