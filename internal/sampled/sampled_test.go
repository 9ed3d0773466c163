package sampled_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/internal/sampled"
)

// lines is a log in memory: numbers are written from a goroutine of their own.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func logged() (*slog.Logger, *sampled.Handler, *lines) {
	out := &lines{}
	h := sampled.NewHandler(slog.NewTextHandler(out, nil))
	return slog.New(h), h, out
}

func TestAFloodOfRefusalsIsToldByItsNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _, out := logged()
		for i := range 100_000 {
			log.WarnContext(t.Context(), "caller refused", slog.String("remote", fmt.Sprintf("192.0.2.%d", i%40)), slog.Any("err", errors.New("no client certificate")))
		}
		if n := strings.Count(out.String(), "\n"); n != 20 {
			t.Errorf("%d lines", n)
		}
		log.WarnContext(t.Context(), "something else")
		if !strings.Contains(out.String(), "something else") {
			t.Error("another message is not written")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !strings.Contains(out.String(), `msg="more like this" message="caller refused" times=99980`) {
			t.Errorf("%s", out)
		}
		out.Reset()
		log.WarnContext(t.Context(), "caller refused")
		if !strings.Contains(out.String(), "caller refused") {
			t.Error("the next minute begins with nothing")
		}
	})
}

func TestOneLoudCallerLeavesRoomForOthers(t *testing.T) {
	log, h, out := logged()
	for range 1000 {
		log.WarnContext(t.Context(), "call failed", slog.String("agent", "loud"))
	}
	log.WarnContext(t.Context(), "call failed", slog.String("agent", "quiet"))
	if n := strings.Count(out.String(), "agent=loud"); n != 5 || !strings.Contains(out.String(), "agent=quiet") {
		t.Errorf("%s", out)
	}
	h.Flush(t.Context())
	if !strings.Contains(out.String(), "times=995") {
		t.Errorf("%s", out)
	}
}

func TestInformationIsNotSampled(t *testing.T) {
	log, _, out := logged()
	for range 100 {
		log.InfoContext(t.Context(), "agent joined")
	}
	if n := strings.Count(out.String(), "\n"); n != 100 {
		t.Errorf("%d lines", n)
	}
}

func TestAnErrorOfSeveralLinesIsOneLineOfALog(t *testing.T) {
	var out bytes.Buffer
	err := errors.Join(errors.New("Mesh shop is not deleted, others refer to it:\n  Binding a\n  Binding b"), errors.New("and c"))
	slog.New(sampled.NewHandler(slog.NewJSONHandler(&out, nil))).InfoContext(t.Context(), "x", slog.Any("err", err))
	if want := `"err":"Mesh shop is not deleted, others refer to it: Binding a; Binding b; and c"`; !strings.Contains(out.String(), want) {
		t.Errorf("%s has no %s", out.String(), want)
	}
}

func TestTextInALogIsPlainAndShort(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(sampled.NewHandler(slog.NewJSONHandler(&out, nil)))
	log.With(slog.String("host", "a\u202eb")).InfoContext(t.Context(), "x",
		slog.Any("err", errors.New("c\u200bd"+strings.Repeat("x", 5000))), slog.Any("selectors", []string{"e\u2066f"}))
	for _, r := range "\u202e\u200b\u2066" {
		if strings.ContainsRune(out.String(), r) {
			t.Errorf("%U is left", r)
		}
	}
	if out.Len() > 2000 {
		t.Errorf("%d bytes", out.Len())
	}
}
