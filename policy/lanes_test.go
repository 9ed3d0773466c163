package policy_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"signet.example/policy"
)

// Six callers repeat a request that costs an evaluation its whole time. Their
// evaluations share one processor at the most, and what others ask is not kept waiting.
func TestSlowEvaluationsOfOneDestinationGoOneAtATime(t *testing.T) {
	slow := compileRules(t, "allow contains \"x\" if {\n\tsome x in numbers.range(1, 50000)\n\tsome y in numbers.range(1, 50)\n\tcount(numbers.range(1, x + y)) == 0\n}\n")
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
