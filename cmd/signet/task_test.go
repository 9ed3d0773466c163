package main

import (
	"testing"
	"time"
)

func TestAnAgentThatCrashesIsStartedAgainAndOneThatIsRefusedIsNot(t *testing.T) {
	for code, again := range map[int]bool{exitOK: false, exitFailed: true, exitUsage: false, exitUnreachable: true, exitDenied: false, 137: true} {
		if _, ok := startAgain()(code, time.Minute); ok != again {
			t.Errorf("exit code %d: %t", code, ok)
		}
	}
	ask := startAgain()
	for n := 1; n < mostCrashes; n++ {
		if pause, ok := ask(exitFailed, time.Second); !ok || pause <= 0 {
			t.Errorf("crash %d: %s, %t", n, pause, ok)
		}
	}
	if _, ok := ask(exitFailed, time.Second); ok {
		t.Error("it crashes for ever")
	}
	ask = startAgain()
	for range 3 * mostCrashes {
		if _, ok := ask(exitFailed, time.Hour); !ok {
			t.Error("a crash an hour ends it")
		}
	}
}
