package agent_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"signet.example/api"
	"signet.example/test/parts"
)

// wide has a rule for POST whose last step writes out 200 million values: nothing can
// look at the clock meanwhile, and there is no memory for them.
func wide() string {
	const hundred, most = 100, 20_000
	return fmt.Sprintf(`package signet.authz

allow contains "reads" if input.request.method == "GET"

allow contains "never" if {
	input.request.method == "POST"
	x := [%s]
	y := [%s]
	z := [%s]
	w := [%s]
	count(w) == 0
}
`, list("1", hundred), list("x", hundred), list("y", hundred), list("z", most))
}

func list(element string, n int) string {
	return strings.TrimSuffix(strings.Repeat(element+", ", n), ", ")
}

// What made an evaluation end the process is answered
// with an error at once from then on, so that a repeated request is no switch for
// every proxy of the host.
func TestAnEvaluationThatEndsTheProcessDoesSoOnce(t *testing.T) {
	bad := revision(t, wide())
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t)), entry("one", "/shop/one", self(t))}
		f.policies = []*api.PolicyRevision{bad}
	})
	r.ready(bad.GetId())
	client := authv3.NewAuthorizationClient(r.dial("authz.sock"))
	if c, _, err := r.check(client, "GET", bad.GetId()); err != nil || c != codes.OK {
		t.Fatalf("before: %v %v", c, err)
	}
	begun := time.Now()
	r.await("the end of the evaluation", func() bool {
		_, _, err := r.check(client, "POST", bad.GetId())
		t.Log(err) // its process ends
		return r.metric("signet_agent_evaluations_stopped_total") == "1"
	})
	t.Logf("stopped %s after the first request", time.Since(begun))
	r.await("an answer", func() bool {
		c, _, err := r.check(client, "POST", bad.GetId())
		return err == nil && c == codes.Internal
	})
	restarts := r.metric("signet_agent_authz_restarts_total")
	for range 50 {
		begun := time.Now()
		for _, method := range []string{"POST", "GET"} {
			if c, id, err := r.check(client, method, bad.GetId()); err != nil || c != codes.Internal || id == "" {
				t.Fatalf("%s: %v %q %v", method, c, id, err)
			}
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("an answer took %s", took)
		}
	}
	if now := r.metric("signet_agent_authz_restarts_total"); now != restarts {
		t.Errorf("restarts: %s, then %s", restarts, now)
	}
	r.await("the finding", func() bool {
		return strings.Contains(strings.Join(r.lastReport().GetFindings(), "\n"), "policy-stopped: every call to spiffe://test.example/shop/web under policy revision "+bad.GetId())
	})
	// The next revision is decided by.
	good := revision(t, allowReads)
	r.change(func(f *fakeServer) { f.policies = []*api.PolicyRevision{good} })
	r.await("the next revision", func() bool {
		c, _, err := r.check(client, "GET", good.GetId())
		return err == nil && c == codes.OK
	})
}

// An innocent evaluation is under way whenever somebody kills, interrupts or freezes
// the process. It is answered as before when that is over.
func TestAnEvaluationThatWasThereWhenTheProcessWasEndedFromOutsideIsMadeAsBefore(t *testing.T) {
	slow := revision(t, slowRego)
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t))}
		f.policies = []*api.PolicyRevision{slow}
	})
	r.ready(slow.GetId())
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	for range 3 {
		caller := authv3.NewAuthorizationClient(r.dial("authz.sock"))
		wg.Go(func() {
			for !stop.Load() {
				_, _, _ = r.check(caller, "POST", slow.GetId()) // the process may just have ended
			}
		})
	}
	client := authv3.NewAuthorizationClient(r.dial("authz.sock"))
	decided := func() bool {
		c, _, err := r.check(client, "GET", slow.GetId())
		return err == nil && c == codes.OK
	}
	signals, freezes := []syscall.Signal{syscall.SIGKILL, syscall.SIGQUIT, syscall.SIGSEGV, syscall.SIGTERM}, 1
	if parts.Soak() { // it is started again later each time
		signals, freezes = append(signals, syscall.SIGABRT, syscall.SIGKILL, syscall.SIGQUIT), 2
	}
	for i, s := range signals {
		r.await("a decision", decided)
		time.Sleep(200 * time.Millisecond) // the slow ones are there again
		if err := syscall.Kill(authzPID(t), s); err != nil {
			t.Fatal(err)
		}
		r.await("the end by "+s.String(), func() bool { return r.metric("signet_agent_authz_restarts_total") == strconv.Itoa(i+1) })
	}
	r.await("a decision", decided)
	pid := authzPID(t)
	for range freezes {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		r.await("a decision", decided)
	}
	if now := authzPID(t); now != pid {
		t.Errorf("a frozen process was ended: pid %d, then %d", pid, now)
	}
	if n := r.metric("signet_agent_evaluations_stopped_total"); n != "0" {
		t.Errorf("%s evaluations are stopped", n)
	}
}
