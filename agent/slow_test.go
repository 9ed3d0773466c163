package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"signet.example/agent"
	"signet.example/api"
	"signet.example/test/parts"
)

// slowRego has rules for POST and PUT that take an evaluation's whole time: many steps,
// and few that are as dear as the fence lets them be.
var slowRego = fmt.Sprintf(`package signet.authz

allow contains "reads" if input.request.method == "GET"

allow contains "many" if {
	input.request.method == "POST"
	some x in numbers.range(1, 50000)
	some y in numbers.range(1, 50000)
	x + y == 0
}

allow contains "dear" if {
	input.request.method == "PUT"
	long := concat("", ["%s"])
	some x in numbers.range(1, 50000)
	regex.match(sprintf("%s%%d$", [x]), long)
}
`, strings.Repeat("a", 16_000), strings.Repeat(".*a", 12))

// mostCPU is what the authz process may use of a processor while six callers repeat the
// worst evaluation and others ask 200 times a second: one slow evaluation a quarter of
// the time, and little before it. It does not depend on what else the machine does.
const mostCPU = 0.6

// Six callers repeat the worst evaluation; what others ask is answered as before.
func TestCallersWhoRepeatTheWorstEvaluationKeepNobodyWaiting(t *testing.T) {
	slow := revision(t, slowRego)
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t))}
		f.policies = []*api.PolicyRevision{slow}
	})
	r.ready(slow.GetId())
	client := authv3.NewAuthorizationClient(r.dial("authz.sock"))
	// measure asks for as long as d, every 5 ms, and returns how long answers took.
	measure := func(d time.Duration) time.Duration {
		var all []time.Duration
		late := 0
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			begun := time.Now()
			switch c, _, err := r.check(client, "GET", slow.GetId()); {
			case err == nil && c == codes.Internal: // it stood still for its 100 ms: the machine is busy
				late++
			case err != nil || c != codes.OK:
				t.Fatalf("a good request: %v %v", c, err)
			}
			all = append(all, time.Since(begun))
		}
		if late > len(all)/100 {
			t.Errorf("%d of %d good requests were not decided in time", late, len(all))
		}
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	before, long := 2*time.Second, 6*time.Second
	if parts.Soak() {
		before, long = 30*time.Second, 5*time.Minute
	}
	quiet := measure(before)

	var stop atomic.Bool
	var repeated atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	for i := range 6 {
		attacker := authv3.NewAuthorizationClient(r.dial("authz.sock"))
		wg.Go(func() {
			for !stop.Load() {
				c, _, err := r.check(attacker, []string{"POST", "PUT"}[i%2], slow.GetId())
				if err != nil || c != codes.Internal {
					t.Errorf("the worst request: %v %v", c, err)
					return
				}
				repeated.Add(1)
			}
		})
	}
	time.Sleep(time.Second)
	used := agent.CPUOf(authzPID(t))
	begun, cpu := time.Now(), used(0)
	during := measure(long)
	share := float64(used(0)-cpu) / float64(time.Since(begun))
	t.Logf("p99 %s before, %s during (%.1f ×; goal 2 ×), %d times the worst, %.2f of a processor", quiet, during, float64(during)/float64(quiet), repeated.Load(), share)
	if share > mostCPU {
		t.Errorf("authz used %.2f of a processor, at most %.2f", share, mostCPU)
	}
	if n := r.metric("signet_agent_authz_restarts_total"); n != "0" {
		t.Errorf("authz ended %s times", n)
	}
	if during > max(20*quiet, 100*time.Millisecond) { // a ceiling for machines that do other things as well
		t.Errorf("p99 %s, %s before", during, quiet)
	}
}
