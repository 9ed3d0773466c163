package child_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"signet.example/internal/child"
)

func TestLongLinesOfAChildAreGivenInPartsAndNoneIsLost(t *testing.T) {
	var got []string
	done := make(chan struct{})
	w := child.Lines(func(line string) {
		if got = append(got, line); line == "last" {
			close(done)
		}
	})
	long := strings.Repeat("x", 40<<10)
	if _, err := w.Write([]byte("first\n\n" + long + "\nlast\n")); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got[0] != "first" || strings.Join(got[1:len(got)-1], "") != long || slices.ContainsFunc(got, func(l string) bool { return l == "" || len(l) > 16<<10 }) {
		t.Errorf("%d lines", len(got))
	}
}

func TestALineOfOursIsLoggedAsItsWriterMeantIt(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	child.LogLine(t.Context(), log, `{"time":"2026-11-28T00:00:00Z","level":"WARN","msg":"refused","pid":7}`)
	child.LogLine(t.Context(), log, "panic: nil map")
	for _, want := range []map[string]any{{"level": "WARN", "msg": "refused", "pid": 7.0}, {"level": "ERROR", "msg": "panic: nil map"}} {
		text, err := out.ReadBytes('\n')
		record := map[string]any{}
		if err = errors.Join(err, json.Unmarshal(text, &record)); err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if record[k] != v {
				t.Errorf("%s is %v, want %v", k, record[k], v)
			}
		}
	}
}
