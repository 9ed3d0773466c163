package signer_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/server/signer"
)

// TestWhoeverOpensAKeyIsNotDumpable asks the process itself, which an earlier call may
// have hardened.
func TestWhoeverOpensAKeyIsNotDumpable(t *testing.T) {
	dir := shortDir(t)
	password := filepath.Join(dir, "password")
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"init", func() error { return signer.Init(signerTD, dir, password, false) }},
		{"check", func() error {
			_, err := signer.CheckFiles(signer.Config{DataDir: dir, PasswordFile: password}, nil)
			return err
		}},
	} {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := c.call(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var core unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
			t.Fatal(err)
		}
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 || core.Max != 0 {
			t.Errorf("%s: dumpable %d, core size %d, %v", c.name, dumpable, core.Max, err)
		}
	}
}
