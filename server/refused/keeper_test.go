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
			if k.Due() && k.Write(t.Context(), refused.All{}.FileOf(nil), path, slog.New(slog.NewTextHandler(&log, nil))) {
				t.Fatal("it was written into a folder that is not there")
			}
			time.Sleep(200 * time.Millisecond)
		}
		if n := strings.Count(log.String(), "not remembered"); n != 2 {
			t.Errorf("tried %d times in a minute", n)
		}
	})
}
