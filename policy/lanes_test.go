package policy_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/policy"
	"signet.example/policy/sandbox"
)

// Six callers repeat a request that costs an evaluation its whole time. Their
// evaluations share one processor at the most, and what others ask is not kept waiting.
func TestSlowEvaluationsOfOneDestinationGoOneAtATime(t *testing.T) {
	slow := compile(t, "package signet.authz\n\nallow contains \"x\" if {\n\tsome x in numbers.range(1, 50000)\n\tsome y in numbers.range(1, 50)\n\tcount(numbers.range(1, x + y)) == 0\n}\n")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if d, err := slow.Evaluate(ctx, call("GET", "/", web)); err == nil || d.Allowed {
					t.Errorf("%v %v", d, err)
				}
			}
		})
	}
	most := 0
	for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		most = max(most, policy.SlowAtOnce())
	}
	if most != 1 {
		t.Errorf("%d slow evaluations of one destination at a time", most)
	}
}

// What is done before the lane is done as often as somebody asks.
func TestADearCallIsMadeInTheLaneOnly(t *testing.T) {
	dear := compile(t, "package signet.authz\n\nallow contains \"x\" if {\n\tsome x in numbers.range(1, 50000)\n\tx < 0\n}\n")
	in := call("GET", "/", web)
	leave := policy.HoldLane(in.Destination.ID.String())
	defer leave()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := dear.Evaluate(t.Context(), in)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("it did not wait for its lane")
	}
	if made := after.TotalAlloc - before.TotalAlloc; made > 1<<20 {
		t.Errorf("%d KiB were made before it", made>>10)
	}
}

// Who waits for the lane has a turn of authz meanwhile, of which others need some.
func TestOfOneDestinationSoManySlowEvaluationsWait(t *testing.T) {
	for range 5 { // a loaded host may not be through with too many before those that wait give up
		if goneOn(t) > 0 {
			return
		}
	}
	t.Error("none that waited went on")
}

// goneOn has more evaluations come than may wait, and returns how many of these went on.
func goneOn(t *testing.T) (went int) {
	t.Helper()
	slow := compile(t, "package signet.authz\n\nallow contains \"x\" if {\n\tevery x in numbers.range(1, 3000) { x > 0 }\n}\n")
	in := call("GET", "/", web)
	in.Destination.ID = spiffeid.RequireFromString(fmt.Sprintf("spiffe://prod.example/shop/of-%d", time.Now().UnixNano())) // its lane rests from no run before
	leave := policy.HoldLane(in.Destination.ID.String())
	const asked, most = 40, 32 // of which one holds it
	ended := make(chan error, asked)
	for range asked {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			_, err := slow.Evaluate(sandbox.Yielding(t.Context(), runtime.Gosched), in)
			ended <- err
		}()
	}
	for range asked - (most - 1) {
		if err := <-ended; !errors.Is(err, sandbox.ErrLimit) {
			t.Errorf("one of too many: %v", err)
		}
	}
	leave()
	for range most - 1 {
		if err := <-ended; err == nil {
			went++
		}
	}
	return went
}

// Whoever asks may give up before that.
func TestASlowEvaluationThatNobodyWaitsForLeavesItsLane(t *testing.T) {
	slow := compile(t, "package signet.authz\n\nallow contains \"x\" if {\n\tevery x in numbers.range(1, 3000) { x > 0 }\n}\n")
	in := call("GET", "/", web)
	in.Destination.ID = spiffeid.RequireFromString(fmt.Sprintf("spiffe://prod.example/shop/of-%d", time.Now().UnixNano())) // its lane rests from no run before
	defer policy.HoldLane(in.Destination.ID.String())()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, err := slow.Evaluate(sandbox.Yielding(ctx, runtime.Gosched), in)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	cancel()
	begun := time.Now()
	if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(begun) > 3*time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
}

// Go would let it run for 10 ms at a time, and nobody else of the same processor.
func TestASlowEvaluationLetsOthersGoOn(t *testing.T) {
	slow := compile(t, "package signet.authz\n\nallow contains \"x\" if {\n\tsome x in numbers.range(1, 50000)\n\tsome y in numbers.range(1, 50000)\n\tx + y == 0\n}\n")
	in := call("GET", "/", web)
	in.Destination.ID = spiffeid.RequireFromString(fmt.Sprintf("spiffe://prod.example/shop/of-%d", time.Now().UnixNano())) // its lane rests from no run before
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var went, over atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for over.Load() == 0 {
			went.Add(1)
			runtime.Gosched()
		}
	})
	if _, err := slow.Evaluate(t.Context(), in); err == nil {
		t.Error("it was not slow")
	}
	over.Store(1)
	wg.Wait()
	if n := went.Load(); n < 10 {
		t.Errorf("another goroutine went on %d times in its 100 ms", n)
	}
}
