package shared_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/server/shared"
)

func openNumber(t *testing.T, path string, log *slog.Logger) (*shared.File[int], error) {
	t.Helper()
	return shared.OpenFile(path, shared.Form[int, []int]{
		What: "numbers",
		Read: func(list []int) int {
			if len(list) == 0 {
				return 0
			}
			return list[0]
		},
		Write: func(n int) []int { return []int{n} },
		Same:  func(a, b int) bool { return a == b },
	}, log)
}

// A thousand answers at once, each of which changes a file of a thousand rows, are not a
// thousand writes of it.
func TestAFileIsWrittenOnceASecondAtMostAndHasTheLastValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, log := filepath.Join(t.TempDir(), "file.json"), slog.New(slog.DiscardHandler)
		f, err := openNumber(t, path, log)
		if err != nil || f.Load() != 0 {
			t.Fatalf("%d, %v", f.Load(), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		writes := 0
		var last os.FileInfo
		for n := range 1000 {
			f.Update(func(int) int { return n + 1 })
			synctest.Wait()
			now, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if last == nil || !os.SameFile(now, last) {
				writes++
			}
			last = now
		}
		if writes != 1 {
			t.Errorf("written %d times at once", writes)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if again, err := openNumber(t, path, log); err != nil || again.Load() != 1000 {
			t.Errorf("after a second: %d, %v", again.Load(), err)
		}
		f.Set(7)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if again, err := openNumber(t, path, log); err != nil || again.Load() != 7 {
			t.Errorf("after the end: %d, %v", again.Load(), err)
		}
	})
}

// A thousand instances of each of two hundred services change all the time.
func TestALargeFileIsWrittenAtAPaceThatItsSizeGives(t *testing.T) {
	for size, want := range map[int]int{100: 20, 2 << 20: 10, 4 << 20: 5} {
		synctest.Test(t, func(t *testing.T) {
			written := 0
			f, err := shared.OpenFile(filepath.Join(t.TempDir(), "file.json"), shared.Form[int, string]{
				What: "numbers", Read: func(string) int { return 0 }, Same: func(a, b int) bool { return a == b },
				Write: func(n int) string { written++; return strings.Repeat("x", size) },
			}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- f.Run(ctx) }()
			for n := range 5 * 20 {
				f.Set(n + 1)
				time.Sleep(200 * time.Millisecond)
			}
			synctest.Wait()
			if written < want-1 || written > want+1 {
				t.Errorf("%d bytes are written %d times in 20 s, want %d", size, written, want)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAFileThatCannotBeWrittenIsToldAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "not there yet")
		path := filepath.Join(dir, "file.json")
		var told bytes.Buffer
		f, err := openNumber(t, path, slog.New(slog.NewTextHandler(&told, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		f.Set(3)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(told.String(), "what=numbers"); n != 1 {
			t.Errorf("told %d times in ten seconds:\n%s", n, told.String())
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if again, err := openNumber(t, path, slog.New(slog.DiscardHandler)); err != nil || again.Load() != 3 {
			t.Errorf("when it can be written: %d, %v", again.Load(), err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAFileThatCannotBeReadIsAnErrorAndBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.json")
	if err := os.WriteFile(path, []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openNumber(t, path, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "last known numbers") || f.Load() != 0 {
		t.Errorf("%d, %v", f.Load(), err)
	}
}
