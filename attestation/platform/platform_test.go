package platform_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"signet.example/attestation/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// books are what is kept of what was used, and what was taken of the quota.
type books struct {
	used  map[string]bool
	beat  bool // another server uses it up between the look and the use
	err   error
	wrote int
	took  int
}

func (b *books) Used(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	return b.used[string(hash)], b.err
}

func (b *books) UseOnce(_ context.Context, hash []byte, _, _ time.Time) (bool, error) {
	b.wrote++
	first := !b.used[string(hash)] && !b.beat
	b.used[string(hash)] = true
	return first, nil
}

func (b *books) Take(string, []byte) error {
	b.took++
	return nil
}

// A9-76: who had one token that was used kept all other pods of its service account out with it.
func TestWhatWasUsedTakesNothingOfTheQuotaAndWritesNothing(t *testing.T) {
	b := &books{used: map[string]bool{}}
	var nowhere error
	s, now := platform.Server{Once: b, Quota: b, Group: func([]string) error { return nowhere }}, time.Now()
	use := func(id string) (bool, error) {
		return s.Use(t.Context(), "role", nil, nil, []byte(id), now, now.Add(time.Minute))
	}
	if first, err := use("one"); !first || err != nil || b.took != 1 || b.wrote != 1 {
		t.Fatalf("%v, %v: took %d, wrote %d", first, err, b.took, b.wrote)
	}
	for range 100 {
		if first, err := use("one"); first || err != nil {
			t.Fatalf("again: %v, %v", first, err)
		}
	}
	if b.took != 1 || b.wrote != 1 {
		t.Errorf("a hundred replays took %d, and wrote %d", b.took-1, b.wrote-1)
	}
	nowhere = errors.New("no group fits")
	if _, err := use("two"); !errors.Is(err, nowhere) || !errors.Is(err, platform.ErrNotNow) || b.took != 1 || b.wrote != 1 {
		t.Errorf("in no group: %v: took %d, and wrote %d", err, b.took-1, b.wrote-1)
	}
	nowhere, b.beat = nil, true
	if first, err := use("two"); first || err != nil {
		t.Errorf("used elsewhere since it was looked at: %v, %v", first, err)
	}
	b.err = errors.New("no disk")
	if _, err := use("three"); !errors.Is(err, platform.ErrNotNow) || b.took != 2 {
		t.Errorf("where it cannot be known: %v, took %d", err, b.took)
	}
}
