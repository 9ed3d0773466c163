package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"signet.example/internal/durable"
)

// A start that meets a check must not fail for it.
func TestWhoAsksForALockTakesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	if durable.Locked(path) {
		t.Error("a file that is not there is locked")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{path, dir} {
		ended := make(chan struct{})
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for {
					select {
					case <-ended:
						return
					default:
						durable.Locked(what)
					}
				}
			})
		}
		for range 2_000 {
			f, err := os.Open(what)
			if err != nil {
				t.Fatal(err)
			}
			if err := durable.Lock(f); err != nil {
				t.Fatalf("beside who asks: %v", err)
			}
			if !durable.Locked(what) {
				t.Fatal("it is not seen to be locked")
			}
			_ = f.Close()
		}
		close(ended)
		asking.Wait()
		if durable.Locked(what) {
			t.Errorf("%s is locked by nobody", what)
		}
	}
}

func TestOneOfTwoHasTheLock(t *testing.T) {
	dir := t.TempDir()
	open := func() *os.File {
		t.Helper()
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, other := open(), open()
	defer func() { _ = other.Close() }()
	if err := durable.Lock(one); err != nil {
		t.Fatal(err)
	}
	if err := durable.Lock(other); !errors.Is(err, durable.ErrLocked) || !durable.Locked(dir) {
		t.Errorf("%v", err)
	}
	_ = one.Close()
	if err := durable.Lock(other); err != nil || !durable.Locked(dir) {
		t.Errorf("after the first ended: %v", err)
	}
}
