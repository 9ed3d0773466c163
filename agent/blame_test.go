package agent

import (
	"errors"
	"testing"
	"time"

	"signet.example/authz"
)

func TestAnEvaluationThatDoesNotEndIsSeenFromOutside(t *testing.T) {
	ours, f, err := newJournal()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := openJournal(f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
			t.Error(err)
		}
	}()
	begun := time.Now()
	seen := make(chan error, 1)
	go func() { seen <- watch(t.Context(), ours) }() // ends with the evaluation that does not
	stuck := authz.Evaluation{Destination: "spiffe://test.example/shop/web", Revision: "r1"}
	_ = theirs.begin(stuck)
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
			end := theirs.begin(authz.Evaluation{Destination: "spiffe://test.example/shop/other", Revision: "r1"})
			time.Sleep(time.Millisecond)
			end()
		}
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
		ends = append(ends, theirs.begin(e))
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

// Which of several evaluations ended the process shows when they are made one at a time.
func TestTheCulpritAmongSeveralEvaluationsIsFoundAndNoOtherIsStopped(t *testing.T) {
	culprit, other := authz.Evaluation{Destination: "a", Revision: "r"}, authz.Evaluation{Destination: "b", Revision: "r"}
	killed, now := errors.New("signal: killed"), time.Now()
	var b blame
	if stopped := b.learn(killed, map[int]entry{0: {1, culprit}, 7: {3, other}}, now); len(stopped) != 0 || len(b.suspects()) != 2 {
		t.Fatalf("stopped %v, suspects %v", stopped, b.suspects())
	}
	bystander := authz.Evaluation{Destination: "c", Revision: "r"}
	if stopped := b.learn(killed, map[int]entry{0: {1, culprit}, 7: {3, bystander}}, now); len(stopped) != 1 || stopped[0] != culprit {
		t.Fatalf("stopped %v", stopped)
	}
	if b.suspects()[bystander] || len(b.stopped) != 1 {
		t.Errorf("%v", b)
	}
	if !b.forget(map[string]bool{"r2": true}, now) || len(b.stopped) != 0 || len(b.suspect) != 0 {
		t.Errorf("not forgotten with its revision: %v", b)
	}
	for i := range 3 * maxStopped {
		b.stop(authz.Evaluation{Destination: string(rune(i)), Revision: "r2"})
	}
	if len(b.stopped) > maxStopped {
		t.Errorf("%d are remembered", len(b.stopped))
	}
}
