package paced

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestEachHasABucketOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New[string](10, 5)
		for range 5 {
			if !e.Allow("a") {
				t.Error("the bucket was not full")
			}
		}
		if e.Allow("a") || !e.Allow("b") {
			t.Error("one took what is another's")
		}
		if after, never := e.Take("a", 2); after != 200*time.Millisecond || never {
			t.Errorf("two more after %s, never: %v", after, never)
		}
		if _, never := e.Take("a", 6); !never {
			t.Error("more than a bucket holds will be there one day")
		}
		time.Sleep(200 * time.Millisecond)
		if after, _ := e.Take("a", 2); after != 0 {
			t.Errorf("what was refused was taken: two more after %s", after)
		}
	})
}

// However many come, those that come no more are forgotten.
func TestFullBucketsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New[int](10, 5)
		for round := range 10 {
			for n := range fewBuckets {
				e.Allow(round*fewBuckets + n)
			}
			e.Allow(-1) // it does not come to rest
			time.Sleep(time.Second)
			if len(e.by) > 2*fewBuckets {
				t.Fatalf("%d buckets", len(e.by))
			}
		}
	})
}
