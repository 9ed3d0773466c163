package watched_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"signet.example/internal/watched"
)

func TestWhoWaitsGetsTheFirstValueThatIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v watched.Value[int]
		got := make(chan int)
		go func() {
			n, err := v.Wait(t.Context(), func(n int) bool { return n >= 3 })
			if err != nil {
				t.Error(err)
			}
			got <- n
		}()
		for n := range 3 {
			v.Set(n)
			synctest.Wait()
			select {
			case n := <-got:
				t.Fatalf("got %d", n)
			default:
			}
		}
		v.Update(func(n int) int { return n + 2 })
		if n := <-got; n != 4 {
			t.Errorf("got %d, want 4", n)
		}
	})
}

func TestWhoWaitsInVainGetsTheNewestAndTheReason(t *testing.T) {
	var v watched.Value[string]
	v.Set("newest")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := v.Wait(ctx, func(string) bool { return false }); got != "newest" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAReplacedValueClosesWhatItsReadersGot(t *testing.T) {
	var v watched.Value[int]
	_, first := v.Get()
	_, same := v.Get()
	v.Set(1)
	<-first
	<-same
	if _, next := v.Get(); next == first {
		t.Error("the channel of the old value stands for the new one")
	}
}

func TestASignalIsOneHoweverOftenItIsSet(t *testing.T) {
	s := watched.NewSignal()
	s.Wake()
	s.Wake()
	<-s
	select {
	case <-s:
		t.Error("it was set once more")
	default:
	}
}
