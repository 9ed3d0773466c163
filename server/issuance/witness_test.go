package issuance

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/store"
)

// gatedMarks are written when the test lets them be.
type gatedMarks struct {
	begun, let chan struct{}

	mu     sync.Mutex
	writes int
	kept   uint64
	err    error
}

func (m *gatedMarks) LogMark(context.Context) (store.LogMark, error) { return store.LogMark{}, nil }

func (m *gatedMarks) PutLogMark(_ context.Context, p store.LogMark) error {
	m.begun <- struct{}{}
	<-m.let
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.err == nil {
		m.kept = p.Sequence
	}
	return m.err
}

func (m *gatedMarks) ResetLogMark(context.Context, string, string, store.LogMark) error { return nil }

func (m *gatedMarks) state() (writes int, kept uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes, m.kept
}

func TestOneWriteKeepsWhatAllHaveSeenWhoWaitForIt(t *testing.T) {
	marks := &gatedMarks{begun: make(chan struct{}), let: make(chan struct{})}
	w, err := NewWitness(t.Context(), nil, marks, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	note := func(n uint64) {
		calls.Go(func() {
			if err := w.note(t.Context(), &api.LogPosition{Sequence: n}); err != nil {
				t.Error(err)
			}
			if _, kept := marks.state(); kept < n {
				t.Errorf("certificates up to record %d go out, and %d is kept", n, kept)
			}
		})
	}
	note(1)
	<-marks.begun // its write is under way
	const most = 100
	for n := range uint64(most) {
		note(most - n)
	}
	for { // until all have shown what they have seen; none of them waits for the disk to do so
		time.Sleep(time.Millisecond)
		w.mu.Lock()
		shown := w.shown.Sequence
		w.mu.Unlock()
		if shown == most {
			break
		}
	}
	if w.position() != nil {
		t.Errorf("a call that begins is told of %v, which is not durable", w.position())
	}
	marks.let <- struct{}{}
	<-marks.begun
	marks.let <- struct{}{}
	calls.Wait()
	if n, kept := marks.state(); n != 2 || kept != most {
		t.Errorf("%d writes, the last of %d", n, kept)
	}
	write := func(n uint64) error {
		done := make(chan error)
		go func() { done <- w.note(t.Context(), &api.LogPosition{Sequence: n}) }()
		<-marks.begun
		marks.let <- struct{}{}
		return <-done
	}
	marks.err = errors.New("the disk is full")
	if err := write(most + 1); !errors.Is(err, fault.Unavailable) || w.position().GetSequence() != most {
		t.Errorf("what is not durable goes out: %v, seen %v", err, w.position())
	}
	marks.err = nil
	if err := write(most + 1); err != nil || w.position().GetSequence() != most+1 {
		t.Errorf("after the disk has room again: %v, seen %v", err, w.position())
	}
}
