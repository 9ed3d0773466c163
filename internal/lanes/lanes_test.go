package lanes_test

import (
	"testing"
	"testing/synctest"
	"time"

	"signet.example/internal/lanes"
)

func TestOfOneOwnerOneGoesOnAndRestsWhereItWasOverItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lanes.New()
		leave := l.Enter("a", time.Second)
		if l.Enter("a", time.Millisecond) != nil {
			t.Error("two of one owner go on")
		}
		time.Sleep(99 * time.Millisecond)
		leave(true) // after 100 ms, so that it rests for 300
		begun := time.Now()
		if leave = l.Enter("a", time.Second); leave == nil || time.Since(begun) != 300*time.Millisecond {
			t.Fatalf("its rest was %v", time.Since(begun))
		}
		leave(false)
		if begun = time.Now(); l.Enter("a", time.Second) == nil || time.Since(begun) != 0 || l.Busy() != 1 {
			t.Errorf("what was not over its time rests %v, %d go on", time.Since(begun), l.Busy())
		}
	})
}
