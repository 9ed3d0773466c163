package child_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/child"
	"signet.example/test/parts"
)

func TestASpareUserIsOneThatNoProcessRunsAs(t *testing.T) {
	first, err := child.SpareUser()
	if err != nil || !child.IsSpare(first.UID) || first.GID != first.UID || len(first.Groups) != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if os.Geteuid() != 0 {
		parts.Missing(t, "another user: it needs root")
	}
	p, err := child.Start(child.Spec{Path: "/bin/sleep", Args: []string{"60"}, User: &first})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(0)
	if second, err := child.SpareUser(); err != nil || second.UID == first.UID {
		t.Errorf("beside a process of %d: %+v, %v", first.UID, second, err)
	}
}

func TestAProcessThatCannotBeReadMayRunAsAnyUser(t *testing.T) {
	proc := t.TempDir()
	write := func(thread, status string) {
		t.Helper()
		dir := filepath.Join(proc, thread)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	own := os.Geteuid()
	write("1/task/1", fmt.Sprintf("Name:\tsignet\nUid:\t%d\t%d\t%d\t%d\n", own, own, own, own))
	write("2/task/2", "Name:\tx\nUid:\t60578\t60579\t60580\t60581\n")
	write("2/task/7", "Name:\tx\nUid:\t60583\t60583\t60583\t60583\n") // a thread that changed its user alone
	used, err := child.UIDsInUse(proc)
	if err != nil || !used[60578] || !used[60581] || used[60582] || !used[60583] {
		t.Errorf("%v, %v", used, err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(proc, "3"), 0o755), os.MkdirAll(filepath.Join(proc, "2", "task", "8"), 0o755), os.Mkdir(filepath.Join(proc, "sys"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := child.UIDsInUse(proc); err != nil {
		t.Errorf("a process that has ended: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(proc, "4", "task", "4", "status"), 0o755); err != nil { // reading it fails, for root too
		t.Fatal(err)
	}
	if used, err := child.UIDsInUse(proc); err == nil {
		t.Errorf("a process that cannot be read: %v", used)
	}
}

func TestAUserDatabaseThatCannotBeReadHasNotSaidThatNobodyIsThere(t *testing.T) {
	for _, err := range []error{user.UnknownUserIdError(60578), user.UnknownGroupIdError("60578"), user.UnknownUserError("x")} {
		if absent, err := child.IsAbsent(err); !absent || err != nil {
			t.Errorf("%v, %v", absent, err)
		}
	}
	if absent, err := child.IsAbsent(&fs.PathError{Op: "open", Path: "/etc/passwd", Err: fs.ErrPermission}); absent || err == nil {
		t.Errorf("%v, %v", absent, err)
	}
	if absent, err := child.IsAbsent(nil); absent || err != nil {
		t.Errorf("found: %v, %v", absent, err)
	}
}

func TestAUserIsNamedByItsNumber(t *testing.T) {
	if name, gid := child.NameOf(0); name != "root" || gid != 0 {
		t.Errorf("uid 0 is %q with gid %d", name, gid)
	}
	if name, gid := child.NameOf(64991); name != "" || gid != 64991 {
		t.Errorf("a uid without a name is %q with gid %d", name, gid)
	}
}

func TestAUserIsGivenByNameOrNumber(t *testing.T) {
	for text, want := range map[string]child.User{
		"root":        {},
		"0":           {},
		"64991":       {UID: 64991, GID: 64991},
		"64991:64992": {UID: 64991, GID: 64992},
	} {
		got, err := child.LookupUser(text)
		if err != nil || got.UID != want.UID || got.GID != want.GID {
			t.Errorf("%s: %s, %v", text, cmp.Diff(want, got), err)
		}
		if uid, err := child.LookupUID(text); (err != nil || uid != want.UID) && !strings.Contains(text, ":") {
			t.Errorf("%s: %d, %v", text, uid, err)
		}
	}
	for _, text := range []string{"no-such-user-here", "-1", "4294967295", "1:", ":1", "1:4294967295", "a:b", ""} {
		if u, err := child.LookupUser(text); err == nil {
			t.Errorf("%q is %v", text, u)
		}
	}
	for _, text := range []string{"no-such-user-here", "-1", "4294967295", "4294967296", "64991:64991", ""} {
		if uid, err := child.LookupUID(text); err == nil {
			t.Errorf("%q is %d", text, uid)
		}
	}
}
