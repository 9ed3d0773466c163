package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestWhatIsInterruptedIsWaitedForAMomentAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for takes, want := range map[time.Duration]struct {
			code int
			done bool
		}{
			endsWithin / 2: {exitDifferent, true},
			time.Hour:      {exitFailed, false},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			begun := time.Now()
			cancel()
			code, done := untilInterrupted(ctx, func() int {
				time.Sleep(takes)
				return exitDifferent
			})
			if code != want.code || done != want.done || time.Since(begun) != min(takes, endsWithin) {
				t.Errorf("what takes %s ends after %s: code %d, done %t", takes, time.Since(begun), code, done)
			}
		}
		if code, done := untilInterrupted(t.Context(), func() int { time.Sleep(time.Hour); return exitOK }); code != exitOK || !done {
			t.Errorf("what nobody interrupts: code %d, done %t", code, done)
		}
	})
}

// What serves ends in its own time; everything that somebody waits for can be interrupted.
func TestOnlyProcessesThatServeTakeTheirTimeWhenTheyAreInterrupted(t *testing.T) {
	root := newRoot()
	for _, top := range root.Commands() {
		serves := top.GroupID == "run" || slices.Contains([]string{"authz", "policy-child", "demo-service", "demo-get", "version"}, top.Name())
		for _, c := range append([]*cobra.Command{top}, top.Commands()...) {
			if interruptible(c) == serves {
				t.Errorf("%s: interruptible %t", c.CommandPath(), !serves)
			}
		}
	}
}

func TestAnInterruptedCommandSaysThatAndWhatItKnows(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	known := hinted(fmt.Errorf("it is stored as revision 7: %w", context.Canceled), "look")
	for _, c := range []struct {
		ctx       context.Context
		err, want error
	}{
		{over, fmt.Errorf("read -: %w", context.Canceled), errInterrupted},
		{over, status.Error(codes.Canceled, "context canceled"), errInterrupted},
		{over, known, known},
		{over, errDemo, errDemo},
		{t.Context(), context.Canceled, context.Canceled},
	} {
		if err := asInterrupted(c.ctx, c.err); !errors.Is(err, c.want) || exitCode(err) != exitFailed {
			t.Errorf("%v becomes %v", c.err, err)
		}
	}
}

var errDemo = errors.New("another mistake")
