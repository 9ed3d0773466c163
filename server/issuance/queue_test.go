package issuance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"signet.example/api"
)

// heldSigner answers each request with its own identity, once it may.
type heldSigner struct {
	may  chan struct{} // closed, everything is answered
	keep chan struct{} // closed, or nil: what was answered is kept
	fail error

	mu    sync.Mutex
	calls []int // items of each
	asked [][]*api.SignItem
}

func (s *heldSigner) Sign(ctx context.Context, items []*api.SignItem) (Signed, error) {
	s.mu.Lock()
	s.calls, s.asked = append(s.calls, len(items)), append(s.asked, items)
	s.mu.Unlock()
	select {
	case <-s.may:
	case <-ctx.Done():
		return Signed{}, ctx.Err()
	}
	if s.fail != nil {
		return Signed{}, s.fail
	}
	var out []*api.SignResult
	for _, i := range items {
		out = append(out, &api.SignResult{Chain: [][]byte{[]byte(i.GetSpiffeId())}})
	}
	return NewSigned(out, func(ctx context.Context) error {
		if s.keep == nil {
			return nil
		}
		select {
		case <-s.keep:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}), nil
}

// runQueue is a queue that runs until the test ends.
func runQueue(t *testing.T, s *heldSigner) *Queue {
	t.Helper()
	s.may = make(chan struct{})
	q := NewQueue(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return q
}

func signItems(name string, n int) []*api.SignItem {
	var items []*api.SignItem
	for k := range n {
		items = append(items, &api.SignItem{SpiffeId: fmt.Sprintf("%s/%d", name, k)})
	}
	return items
}

func TestWhatArrivesWhileTheSignerWorksSharesACallAndEveryoneGetsHisOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{}
		q := runQueue(t, s)
		var asking sync.WaitGroup
		for n := range 40 {
			asking.Go(func() {
				size, name := 1+n%3, fmt.Sprint(n)
				results, err := q.Issue(t.Context(), Share{Agent: "a"}, signItems(name, size))
				if err != nil || len(results) != size {
					t.Errorf("%s: %d results, %v", name, len(results), err)
					return
				}
				for k, r := range results {
					if got := string(r.GetChain()[0]); got != fmt.Sprintf("%s/%d", name, k) {
						t.Errorf("%s was given %s", name, got)
					}
				}
			})
			if n < sharedCalls {
				synctest.Wait() // it is under way
			}
		}
		synctest.Wait()
		close(s.may)
		asking.Wait()
		if len(s.calls) > sharedCalls+3 {
			t.Errorf("40 requests made the calls %v", s.calls)
		}
		for _, n := range s.calls {
			if n >= callSize+aloneFrom {
				t.Errorf("a call carries %d", n)
			}
		}
	})
}

// The disk of the server is waited for beside the signer's.
func TestWhoWaitsForWhatWasAnsweredToBeKeptKeepsNobodyFromTheSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{keep: make(chan struct{})}
		q := runQueue(t, s)
		close(s.may)
		var asking sync.WaitGroup
		var got atomic.Int32
		ctx, leave := context.WithCancel(t.Context())
		const all = 4 * sharedCalls
		contexts := append(slices.Repeat([]context.Context{t.Context()}, all), ctx, ctx) // the last two leave
		for n := range contexts {
			asking.Go(func() {
				size := 1
				if n == all {
					size = aloneFrom
				}
				results, err := q.Issue(contexts[n], Share{Agent: "a"}, signItems("x", size))
				if (err == nil) != (n < all) || err != nil && len(results) > 0 {
					t.Errorf("request %d: %d results, %v", n, len(results), err)
				}
				if err == nil {
					got.Add(1)
				}
			})
			synctest.Wait()
		}
		if len(s.calls) != len(contexts) {
			t.Errorf("the signer was asked %v while nothing could be kept", s.calls)
		}
		if n := got.Load(); n != 0 {
			t.Errorf("%d were given what is not kept", n)
		}
		leave()
		synctest.Wait()
		close(s.keep)
		asking.Wait()
		if n := got.Load(); n != all {
			t.Errorf("%d of %d were given theirs", n, all)
		}
	})
}

func TestABatchGoesByItselfAndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{}
		q := runQueue(t, s)
		var asking sync.WaitGroup
		for _, n := range []int{1, 1, 1, 1, aloneFrom, aloneFrom} {
			asking.Go(func() {
				if _, err := q.Issue(t.Context(), Share{Agent: "a"}, signItems("x", n)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		alone, shared := 0, 0 // what of the small ones goes together is a matter of who came first
		for _, n := range s.calls {
			if n == aloneFrom {
				alone++
			} else {
				shared++
			}
		}
		if alone != 2 || shared < 1 || shared > sharedCalls {
			t.Errorf("under way: %v", s.calls)
		}
		close(s.may)
		asking.Wait()
	})
}

func TestOneWhoLeavesStopsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{}
		q := runQueue(t, s)
		ctx, leave := context.WithCancel(t.Context())
		contexts := []context.Context{t.Context(), ctx}
		var asking sync.WaitGroup
		for n := range 20 {
			asking.Go(func() {
				if _, err := q.Issue(contexts[n%2], Share{Agent: "a"}, signItems("x", 1)); (err == nil) != (n%2 == 0) {
					t.Errorf("request %d: %v", n, err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(s.may)
		asking.Wait()
	})
}

func TestASignerThatFailsFailsEveryoneOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldSigner{fail: errors.New("down")}
		q := runQueue(t, s)
		close(s.may)
		for range 3 {
			if results, err := q.Issue(t.Context(), Share{Agent: "a"}, signItems("x", 2)); !errors.Is(err, s.fail) || len(results) > 0 {
				t.Errorf("%d results, %v", len(results), err)
			}
		}
	})
}

func TestASignerThatHangsIsNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := runQueue(t, &heldSigner{})
		if _, err := q.Issue(t.Context(), Share{Agent: "a"}, signItems("x", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
	})
}
