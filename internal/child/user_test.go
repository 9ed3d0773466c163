package child_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/child"
)

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
