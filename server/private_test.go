package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/internal/private"
	"signet.example/server"
	"signet.example/test/parts"
)

// spoilt is one way to let others at a data directory.
type spoilt struct {
	path string // below the folder that the data directory is in
	mode os.FileMode
	gid  int // 0 leaves it
	uid  int
	want string
}

func (s spoilt) spoil(t *testing.T, dir string) {
	t.Helper()
	if (s.gid != 0 || s.uid != 0) && os.Geteuid() != 0 {
		parts.Missing(t, "giving files away needs root")
	}
	at := filepath.Join(dir, s.path)
	own := func(id int) int {
		if id == 0 {
			return -1
		}
		return id
	}
	if err := errors.Join(os.Lchown(at, own(s.uid), own(s.gid)), os.Chmod(at, s.mode)); err != nil {
		t.Fatal(err)
	}
}

func TestAServerWhoseFilesOthersCouldReachDoesNotStart(t *testing.T) {
	for name, c := range map[string]spoilt{
		"nothing":                          {"data", 0o700, 0, 0, ""},
		"a folder that others may list":    {"data", 0o755, 0, 0, ""}, // what is in it is closed
		"a data_dir that everybody writes": {"data", 0o777, 0, 0, "chmod go-w"},
		"a data_dir that a group writes":   {"data", 0o770, 60000, 0, "chmod g-w"},
		"a data_dir of another user":       {"data", 0o700, 0, 60000, "belongs to uid 60000"},
		"a parent that everybody writes":   {"", 0o777, 0, 0, "chmod go-w"},
		"a CA that everybody enters":       {"data/ca", 0o777, 0, 0, "chmod go-rwx"},
		"a root key that others read":      {"data/ca/root.key", 0o644, 0, 0, "chmod go-r"},
		"a root key of another user":       {"data/ca/root.key", 0o600, 0, 60000, "belongs to uid 60000"},
		"a password of another user":       {"data/password", 0o600, 0, 60000, "belongs to uid 60000"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			copyMade(t, filepath.Join(dir, "data"))
			c.spoil(t, dir)
			err := server.PrivateServer(server.Config{DataDir: filepath.Join(dir, "data")}, private.Self())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("want %q: %v", c.want, err)
			}
		})
	}
}

func TestInitMakesNothingWhereOthersCouldReplaceIt(t *testing.T) {
	for name, c := range map[string]spoilt{
		"a data_dir that everybody writes": {"data", 0o777, 0, 0, "chmod go-w"},
		"a parent that everybody writes":   {"", 0o777, 0, 0, "chmod go-w"},
		"a data_dir of another user":       {"data", 0o700, 0, 60000, "belongs to uid 60000"},
		"a password that others read":      {"data/password", 0o644, 0, 0, "chmod 600"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			data := filepath.Join(dir, "data")
			if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "password"), []byte("secret\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir)
			err := server.Init(t.Context(), server.InitConfig{TrustDomain: trustDomain, DataDir: data})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q: %v", c.want, err)
			}
			if _, err := os.Lstat(filepath.Join(data, "ca")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a CA was made: %v", err)
			}
		})
	}
}
