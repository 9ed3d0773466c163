package child_test

import (
	"os"
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
	}
	for _, text := range []string{"no-such-user-here", "-1", "4294967295", "1:", ":1", "1:4294967295", "a:b", ""} {
		if u, err := child.LookupUser(text); err == nil {
			t.Errorf("%q is %v", text, u)
		}
	}
}
