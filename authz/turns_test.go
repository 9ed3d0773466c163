package authz

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// However many wait for one destination, a check for another is among the next.
func TestDestinationsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		small := wrapperspb.String("x")
		enter := func(destination string, got chan<- string) {
			go func() {
				if err := turns.enter(t.Context(), destination, small); err != nil {
					t.Error(err)
				}
				got <- destination
			}()
			synctest.Wait()
		}
		let := make(chan string, 8)
		for _, destination := range []string{"flooded", "flooded", "flooded", "flooded", "a", "b", "a"} {
			enter(destination, let)
		}
		var order []string
		for range 7 {
			order = append(order, <-let)
			turns.leave()
			synctest.Wait()
		}
		if want := []string{"flooded", "flooded", "a", "b", "flooded", "a", "flooded"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
		if turns.free != 1 || turns.bytes != 0 || len(turns.lines)+len(turns.order) > 0 {
			t.Errorf("left: %+v", turns)
		}
	})
}

func TestWhoGivesUpHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		small := wrapperspb.String("x")
		if err := turns.enter(t.Context(), "a", small); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 8)
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			go func() { ended <- turns.enter(ctx, "b", small) }()
		}
		synctest.Wait()
		cancel()
		for range 3 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		go func() { ended <- turns.enter(t.Context(), "b", small) }() // where all gave up
		synctest.Wait()
		late, cancel := context.WithCancel(t.Context())
		go func() { ended <- turns.enter(late, "c", small) }()
		synctest.Wait()
		turns.leave() // it is b's
		if err := <-ended; err != nil {
			t.Error(err)
		}
		turns.mu.Lock()
		turns.next() // c's turn comes, and c gives up, at once
		cancel()
		turns.mu.Unlock()
		if err := <-ended; err == nil {
			turns.leave() // it saw its turn first
		}
		if turns.free != 1 || turns.bytes != 0 || len(turns.lines)+len(turns.order) > 0 {
			t.Errorf("left: %+v", turns)
		}
	})
}

// What waits is in memory.
func TestOfOneDestinationSoMuchMayWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		large := wrapperspb.String(strings.Repeat("x", 1<<20))
		ctx, cancel := context.WithCancel(t.Context())
		if err := turns.enter(ctx, "a", large); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 100)
		full := func(destination string) (n int) {
			for {
				go func() { ended <- turns.enter(ctx, destination, large) }()
				synctest.Wait()
				select {
				case err := <-ended:
					if !errors.Is(err, errTooManyWait) {
						t.Error(err)
					}
					return n
				default:
					n++
				}
			}
		}
		for _, c := range []struct {
			destination string
			most        int
		}{{"a", 15}, {"b", 15}, {"c", 15}, {"d", 2}, {"e", 1}, {"f", 1}} {
			if n := full(c.destination); n != c.most {
				t.Errorf("%d of a MiB waited for %s, want %d", n, c.destination, c.most)
			}
		}
		cancel()
		synctest.Wait()
		if turns.bytes != 0 {
			t.Errorf("%d bytes are counted of nothing", turns.bytes)
		}
	})
}
