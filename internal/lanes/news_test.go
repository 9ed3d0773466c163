package lanes_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/internal/lanes"
)

func TestWhatIsNewIsTakenOnceAndWhoCostsMuchRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n lanes.News[int]
		want := func(of map[string]int, gone ...string) {
			t.Helper()
			if said, left := n.Take(); !maps.Equal(said, of) || !slices.Equal(left, gone) {
				t.Errorf("said is %v, gone are %v; want %v and %v", said, left, of, gone)
			}
		}
		n.Say("a", 1)
		n.Say("a", 2)
		n.Say("b", 3)
		want(map[string]int{"a": 2, "b": 3})
		want(map[string]int{})
		n.Cost("a", 100*time.Millisecond)
		n.Cost("b", time.Millisecond)
		changed := n.Changed()
		n.Say("a", 4)
		n.Say("b", 5)
		<-changed
		want(map[string]int{"b": 5})
		if left := maps.Collect(n.New()); !maps.Equal(left, map[string]int{"a": 4}) || n.Of("a") != 4 || n.Of("b") != 5 {
			t.Errorf("there is %v to take; a says %d and b %d", left, n.Of("a"), n.Of("b"))
		}
		time.Sleep(299 * time.Millisecond)
		want(map[string]int{})
		changed = n.Changed()
		time.Sleep(time.Millisecond)
		<-changed // when its rest is over
		want(map[string]int{"a": 4})

		n.Cost("a", time.Hour)
		n.Forget("a", func() bool { return true })
		n.Forget("b", func() bool { return false })
		n.Forget("c", func() bool { return false })
		want(map[string]int{}, "b")
		if all := maps.Collect(n.All()); !maps.Equal(all, map[string]int{"a": 4}) {
			t.Errorf("there is %v", all)
		}
		n.Forget("a", func() bool { return false }) // also of who rests
		want(map[string]int{}, "a")
		n.Say("a", 6) // anew
		want(map[string]int{"a": 6})
		time.Sleep(4 * time.Hour) // for the timer that began
	})
}
