package openfiles_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/internal/openfiles"
)

func TestTheLimitIsThatOfThisProcess(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	lower := before
	lower.Cur--
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }() // this process ends soon
	if now, most := openfiles.Limit(); now != lower.Cur || most != before.Max {
		t.Errorf("%d now and %d at most, want %d and %d", now, most, lower.Cur, before.Max)
	}
}
