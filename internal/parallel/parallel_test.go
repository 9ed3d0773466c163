package parallel_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"signet.example/internal/parallel"
)

func TestEachIndexIsCalledOnceAndNoMoreAtOnceThanThereAreProcessors(t *testing.T) {
	var under, most atomic.Int64
	calls := make([]int, 1000)
	parallel.Each(len(calls), func(i int) {
		for now := under.Add(1); ; {
			if before := most.Load(); now <= before || most.CompareAndSwap(before, now) {
				break
			}
		}
		runtime.Gosched()
		calls[i]++
		under.Add(-1)
	})
	for i, n := range calls {
		if n != 1 {
			t.Fatalf("%d was called %d times", i, n)
		}
	}
	if n := most.Load(); n > int64(runtime.GOMAXPROCS(0)) || under.Load() != 0 {
		t.Errorf("%d at once, and %d are under way after it", n, under.Load())
	}
	parallel.Each(0, func(int) { t.Error("called for none") })
}
