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
		time.Sleep(4 * time.Second) // by the clock, which says how busy the host is
		leave(100 * time.Millisecond)
		begun := time.Now()
		if leave = l.Enter("a", time.Second); leave == nil || time.Since(begun) != 300*time.Millisecond {
			t.Fatalf("its rest was %v", time.Since(begun))
		}
		leave(0)
		if begun = time.Now(); l.Enter("a", time.Second) == nil || time.Since(begun) != 0 || l.Busy() != 1 {
			t.Errorf("what was not over its time rests %v, %d go on", time.Since(begun), l.Busy())
		}
	})
}

// Who waits holds what whoever asks has a bounded number of.
func TestOfOneOwnerSoManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lanes.Of(1)
		l.Most = 3
		leave := l.Enter("a", time.Second)
		came := make(chan bool, 9)
		enter := func(owner string) {
			go func() {
				leave := l.Enter(owner, time.Second)
				if leave != nil {
					leave(0)
				}
				came <- leave != nil
			}()
			synctest.Wait()
		}
		for range 3 {
			enter("a")
		}
		if len(came) != 1 || <-came {
			t.Error("more than two wait for one that goes on")
		}
		enter("b")
		leave(0)
		for range 3 {
			if !<-came {
				t.Error("one that could wait did not")
			}
		}
		if leave = l.Enter("a", time.Second); leave == nil {
			t.Error("those that have left are counted")
		}
		leave(0)
	})
}
