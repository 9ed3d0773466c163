package files

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"signet.example/test/parts"
)

// Whoever is of the owner's group can make files in the stage for the moment in which a file
// of the owner's gets its name. A folder that is half made lies there, too: another one in its
// place would get the name at which the owner's programs look for keys and authorities.
func TestNobodyOfTheOwnersGroupPutsAFolderInThePlaceOfOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root")
	}
	dir := filepath.Join(memory(t), "files")
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	half, err := r.mkdir(newFolder)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = half.Close() }() // nothing was written
	said := ""
	if err := r.lend(Owner{UID: 1, GID: 1}, func() error {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `cd "$1" && touch made && mv .folder gone 2>&1; rmdir .folder 2>&1; rm -f made`, "sh", filepath.Join(dir, stageName))
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 1}}
		out, err := cmd.CombinedOutput()
		said = string(out)
		return err
	}); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if strings.Count(said, "Operation not permitted") != 2 {
		t.Errorf("another user of the owner's group: %q", said)
	}
	if _, err := r.open(r.stage, newFolder); err != nil {
		t.Error(err)
	}
}
