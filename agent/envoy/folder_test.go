package envoy

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"signet.example/internal/child"
)

func TestAProxyIsAttestedAsTheUserThatItRunsAs(t *testing.T) {
	e := newEnvoy(Config{Program: "/bin/sh", Log: slog.New(slog.DiscardHandler)}, Proxy{Name: "web", User: &child.User{UID: 64991, GID: 64992}}, &programs{})
	has := e.selectors()
	for _, want := range []string{"unix:uid:64991", "unix:gid:64992"} {
		if !slices.Contains(has.Strings(), want) {
			t.Errorf("%s is not among %q", want, has.Strings())
		}
	}
}

// A9-50: root of another container that has a task's volume had the agent give a folder of its own
// to the proxy.
func TestTheFolderOfAnAdminSocketIsBelowThatOfTheSocketsWhateverLinksSay(t *testing.T) {
	other := &child.User{UID: 64991, GID: uint32(os.Getegid())} //nolint:gosec // a gid has 32 bits
	for name, u := range map[string]*child.User{"the agent's user": nil, "another": other} {
		base, elsewhere := t.TempDir(), t.TempDir()
		if err := os.Chmod(elsewhere, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"", "proxies/web"} {
			if err := adminFolder(base, filepath.Join(base, dir), u); err != nil {
				t.Errorf("%s, %q: %v", name, dir, err)
			}
		}
		want := map[bool]os.FileMode{false: 0o700, true: 0o770}[u.Other()]
		if info, err := os.Stat(filepath.Join(base, "proxies", "web")); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		for link, dir := range map[string]string{"proxies/web2": "proxies/web2", "proxies2": "proxies2/web"} {
			if err := os.Symlink(elsewhere, filepath.Join(base, link)); err != nil {
				t.Fatal(err)
			}
			if err := adminFolder(base, filepath.Join(base, dir), u); err == nil {
				t.Errorf("%s: %s is made where a link leads to", name, dir)
			}
		}
		if info, err := os.Stat(elsewhere); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: the folder elsewhere has %v, %v", name, info.Mode(), err)
		}
		if in, err := os.ReadDir(elsewhere); err != nil || len(in) > 0 {
			t.Errorf("%s: elsewhere there are %v, %v", name, in, err)
		}
	}
}
