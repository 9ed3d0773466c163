package refused_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/server/refused"
)

// Something changes five times a second while a disk is full.
func TestAFileThatCannotBeWrittenIsTriedTwiceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k refused.Keeper
		var log bytes.Buffer
		path := filepath.Join(t.TempDir(), "gone", "refused.json")
		for range 5 * 60 {
			if k.Wait() <= 0 && k.Write(t.Context(), refused.All{}.FileOf(nil), path, slog.New(slog.NewTextHandler(&log, nil))) {
				t.Fatal("it was written into a folder that is not there")
			}
			time.Sleep(200 * time.Millisecond)
		}
		if n := strings.Count(log.String(), "not remembered"); n != 2 {
			t.Errorf("tried %d times in a minute", n)
		}
	})
}

// N15-2: as often as agents said something new, up to 64 MiB were written.
func TestAFileIsWrittenAtAPaceThatItsSizeGives(t *testing.T) {
	for size, want := range map[int]int{0: 60, 1 << 20: 30, 5 << 20: 10} {
		synctest.Test(t, func(t *testing.T) {
			var k refused.Keeper
			path, written := filepath.Join(t.TempDir(), "refused.json"), 0
			for range 5 * 60 {
				if k.Wait() <= 0 {
					if !k.Write(t.Context(), refused.FileOfBytes(size), path, slog.New(slog.DiscardHandler)) {
						t.Fatal("it was not written")
					}
					written++
				}
				time.Sleep(200 * time.Millisecond)
			}
			if written != want {
				t.Errorf("%d bytes are written %d times in a minute, want %d", size, written, want)
			}
		})
	}
}
