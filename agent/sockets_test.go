package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A9-50: in a volume that the containers of a task share root of another one can put a link there,
// by which the agent opened a folder of its own, such as data_dir.
func TestTheFolderOfTheProxiesIsNotWhereALinkLeads(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(elsewhere, 0o700), os.Symlink(elsewhere, filepath.Join(dir, proxiesDir))); err != nil {
		t.Fatal(err)
	}
	s, err := listen(t.Context(), Config{SocketDir: dir})
	if err == nil {
		s.close()
	}
	if err == nil || !strings.Contains(err.Error(), "socket_dir: ") {
		t.Errorf("%v", err)
	}
	if info, err := os.Stat(elsewhere); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder elsewhere has %v, %v", info.Mode(), err)
	}
}
