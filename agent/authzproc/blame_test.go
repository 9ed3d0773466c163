package authzproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"signet.example/agent/resources"
	"signet.example/api"
	"signet.example/authz"
	"signet.example/internal/child"
	"signet.example/internal/watched"
)

// journals are both ends of one journal.
func journals(t *testing.T) (ours, theirs *journal) {
	t.Helper()
	ours, f, err := newJournal()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = openJournal(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
			t.Error(err)
		}
	})
	return ours, theirs
}

func TestAnEvaluationThatDoesNotEndIsSeenFromOutside(t *testing.T) {
	t.Parallel()
	ours, theirs := journals(t)
	begun := time.Now()
	seen := make(chan error, 1)
	cpu := func(uint32) time.Duration { return time.Since(begun) }
	go func() { seen <- watch(t.Context(), ours, cpu) }() // ends with the evaluation that does not
	stuck := authz.Evaluation{Destination: "spiffe://test.example/shop/web", Revision: "r1"}
	_, _ = theirs.begin(stuck)
	for {
		select {
		case err := <-seen:
			var got errStuck
			if !errors.As(err, &got) || got.Evaluation != stuck {
				t.Errorf("%v", err)
			}
			if took := time.Since(begun); took < 10*evaluationTick || took > 5*time.Second {
				t.Errorf("after %s", took)
			}
			return
		default: // others come and go meanwhile, in the same slots again and again
			_, end := theirs.begin(authz.Evaluation{Destination: "spiffe://test.example/shop/other", Revision: "r1"})
			time.Sleep(time.Millisecond)
			end()
		}
	}
}

// However long an evaluation has been under way, it is stuck only while its process
// uses processor time: a clock of the kernel's, here that of real processes.
func TestAFrozenProcessIsNotTakenForABusyOne(t *testing.T) {
	t.Parallel()
	ours, theirs := journals(t)
	busy := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(busy.Process.Kill(), busy.Wait()) }() // it was killed
	if err := busy.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	seen := make(chan error, 1)
	go func() { seen <- watch(t.Context(), ours, CPUOf(busy.Process.Pid)) }() // ends by what follows
	_, waits := theirs.begin(authz.Evaluation{Destination: "spiffe://test.example/shop/web", Revision: "r1"})
	defer waits()
	select {
	case err := <-seen:
		t.Fatalf("a frozen process: %v", err)
	case <-time.After(25 * evaluationTick):
	}
	if err := busy.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-seen:
		if !errors.As(err, new(errStuck)) {
			t.Errorf("a busy process: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a busy process is not seen")
	}
}

// What others have the process do, as whoever sends it frames that mean nothing, is not
// the evaluation's that waits meanwhile.
func TestAnEvaluationThatWaitsInABusyProcessIsNotBlamed(t *testing.T) {
	ours, theirs := journals(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	burn := func() {
		for ctx.Err() == nil {
			runtime.Gosched()
		}
	}
	for range 4 {
		wg.Go(burn)
	}
	seen := make(chan error, 1)
	wg.Go(func() { seen <- watch(ctx, ours, CPUOf(os.Getpid())) })
	_, end := theirs.begin(authz.Evaluation{Destination: "spiffe://test.example/shop/web", Revision: "r1"})
	select {
	case err := <-seen:
		t.Fatalf("one that waits: %v", err)
	case <-time.After(25 * evaluationTick):
	}
	end()
	busy := authz.Evaluation{Destination: "spiffe://test.example/shop/orders", Revision: "r1"}
	wg.Go(func() {
		_, end := theirs.begin(busy)
		defer end()
		burn()
	})
	select {
	case err := <-seen:
		var stuck errStuck
		if !errors.As(err, &stuck) || stuck.Evaluation != busy {
			t.Errorf("one that is busy: %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Error("one that is busy is not seen")
	}
}

// Late is what an evaluation is on a host whose processors others have: 40 times its deadline by
// the clock (policy/sandbox). What its threads do while it waits for its turn is not its own.
func TestAnEvaluationThatIsMerelyLateIsNotBlamed(t *testing.T) {
	for name, lasts := range map[string]func(j *journal, yield func()){
		"it goes on again and again": func(_ *journal, yield func()) {
			for range 40 {
				time.Sleep(99 * time.Millisecond)
				yield()
			}
		},
		"it waits for a thread": func(j *journal, _ func()) {
			slot := 0 // the first one that is free
			j.unlock(slot)
			time.Sleep(4 * time.Second)
			j.goOn(slot)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := journals(t)
				ctx, stop := context.WithCancel(t.Context())
				seen, begun := make(chan error, 1), time.Now()
				busy := func(uint32) time.Duration { return time.Since(begun) } // each thread, whatever it does
				go func() { seen <- watch(ctx, ours, busy) }()
				yield, end := theirs.begin(authz.Evaluation{Destination: "spiffe://test.example/shop/web", Revision: "r1"})
				lasts(theirs, yield)
				end()
				stop()
				if err := <-seen; err != nil {
					t.Errorf("one that is late: %v", err)
				}
			})
		})
	}
}

func TestTheJournalHoldsAsManyEvaluationsAsAreMadeAtATime(t *testing.T) {
	ours, f, err := newJournal()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := openJournal(f)
	if err != nil {
		t.Fatal(err)
	}
	e := authz.Evaluation{Destination: "spiffe://test.example/" + string(make([]byte, 3000)), Revision: string(make([]byte, 3000))}
	var ends []func()
	for range journalSlots + 1 {
		_, end := theirs.begin(e)
		ends = append(ends, end)
	}
	if n := len(ours.entries()); n != journalSlots {
		t.Errorf("%d entries", n)
	}
	for _, end := range ends {
		end()
	}
	if n := len(ours.entries()); n != 0 {
		t.Errorf("%d entries", n)
	}
	if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
		t.Error(err)
	}
}

// ended is how a shell ends that does this to itself.
func ended(t *testing.T, does string) error {
	t.Helper()
	err := exec.CommandContext(t.Context(), "/bin/sh", "-c", does).Run()
	if err == nil {
		t.Fatalf("%s: no error", does)
	}
	return fmt.Errorf("pid 1: %w", err)
}

// Which of several evaluations ended the process shows when they are made one at a time.
func TestTheCulpritAmongSeveralEvaluationsIsFoundAndNoOtherIsStopped(t *testing.T) {
	culprit, other := authz.Evaluation{Destination: "a", Revision: "r"}, authz.Evaluation{Destination: "b", Revision: "r"}
	failed, now := ended(t, "exit 2"), time.Now()
	var b blame
	if stopped := b.learn(failed, map[int]entry{0: {turn: 1, Evaluation: culprit}, 7: {turn: 3, Evaluation: other}}, now); len(stopped) != 0 || len(b.those(false)) != 2 {
		t.Fatalf("stopped %v, suspects %v", stopped, b.those(false))
	}
	bystander := authz.Evaluation{Destination: "c", Revision: "r"}
	if stopped := b.learn(failed, map[int]entry{0: {turn: 1, Evaluation: culprit}, 7: {turn: 3, Evaluation: bystander}}, now); len(stopped) != 1 || stopped[0] != culprit {
		t.Fatalf("stopped %v", stopped)
	}
	if _, suspected := b.those(false)[bystander]; suspected || len(b.those(true)) != 1 {
		t.Errorf("%v", b)
	}
	if !b.forget(map[string]bool{"r2": true}, now) || len(b.of) != 0 {
		t.Errorf("not forgotten with its revision: %v", b)
	}
	for i := range 3 * maxStopped {
		b.stop(authz.Evaluation{Destination: string(rune(i)), Revision: "r2"}, now)
	}
	if len(b.of) > 2*maxStopped {
		t.Errorf("%d are remembered", len(b.of))
	}
}

// What was under way when the process was ended from outside, or by us for another
// reason, was merely there, however often that happens.
func TestAnEndThatNoEvaluationBringsAboutBlamesNone(t *testing.T) {
	there := map[int]entry{0: {turn: 1, Evaluation: authz.Evaluation{Destination: "a", Revision: "r"}}}
	for name, err := range map[string]error{
		"killed":             ended(t, "kill -KILL $$"),
		"told to end":        ended(t, "kill -TERM $$"),
		"its own error":      ended(t, "exit 1"),
		"no error":           child.ErrExited,
		"configure failed":   errors.Join(errors.New("configure: deadline exceeded"), ended(t, "kill -KILL $$")),
		"did not start":      errors.New("start signet: no such file"),
		"its socket was cut": errors.Join(errors.New("decisions: EOF"), ended(t, "exit 1")),
	} {
		var b blame
		for range 3 {
			if stopped := b.learn(err, there, time.Now()); len(stopped) != 0 || len(b.of) != 0 {
				t.Errorf("%s: stopped %v, remembered %v", name, stopped, b.of)
			}
		}
	}
}

// Each time it is stopped for twice as long, and whatever it was, it is tried again.
func TestWhatIsStoppedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := authz.Evaluation{Destination: "a", Revision: "r"}
		a := &Process{known: map[string]*api.PolicyRevision{}, state: &watched.Value[*resources.Snapshot]{}}
		a.state.Set(&resources.Snapshot{Policies: []*api.PolicyRevision{{Id: "r"}}})
		control := &controlStub{configs: make(chan *api.AuthzConfig, 1)}
		var want, all time.Duration
		for i := range 9 {
			stopped := a.blame.learn(errStuck{bad}, map[int]entry{0: {turn: 1, Evaluation: bad}}, time.Now())
			if len(stopped) != 1 {
				t.Fatalf("time %d: not stopped", i)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- a.configure(ctx, control, &handoverTo{state: a.state}) }()
			begun := time.Now()
			if c := <-control.configs; len(c.GetStopped()) != 1 || len(c.GetSuspect()) != 0 {
				t.Fatalf("time %d: %v", i, c)
			}
			if c := <-control.configs; len(c.GetStopped()) != 0 || len(c.GetSuspect()) != 1 {
				t.Fatalf("time %d: %v", i, c)
			}
			took := time.Since(begun)
			if want = min(max(2*want, stopFirst), stopMost); took != want || len(a.stopped.Load()) != 0 {
				t.Errorf("time %d: stopped for %s, want %s; told: %v", i, took, want, a.stopped.Load())
			}
			all += took
			if i == 8 { // it behaves from now on
				if c := <-control.configs; len(c.GetSuspect()) != 0 || len(a.blame.of) != 0 {
					t.Errorf("never forgotten: %v", c)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		t.Logf("9 restarts in %s", all)
	})
}

// controlStub takes what an authz process is told.
type controlStub struct {
	api.AuthzControlClient
	configs chan *api.AuthzConfig
}

func (c *controlStub) Configure(_ context.Context, config *api.AuthzConfig, _ ...grpc.CallOption) (*api.AuthzStatus, error) {
	c.configs <- config
	return &api.AuthzStatus{}, nil
}
