package meshtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"signet.example/test/parts"
)

// SignerDir and SignerSocket are where a signer with a user of its own has its things.
func (w *World) SignerDir() string { return filepath.Join(w.Dir, "signer") }

// SignerSocket is in a folder that everybody may enter and the signer alone may change.
func (w *World) SignerSocket() string { return filepath.Join(w.Dir, "run", "signer.sock") }

// part gives server and signer what is theirs, as an operator does after `signet init`.
func (w *World) part() {
	w.T.Helper()
	// The binary may lie where only the test's own user gets at it.
	program, err := os.ReadFile(w.signet)
	if err != nil {
		w.T.Fatal(err)
	}
	w.signet = filepath.Join(w.Dir, "signet")
	if err := os.WriteFile(w.signet, program, 0o755); err != nil {
		w.T.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(w.SignerSocket()), 0o755); err != nil {
		w.T.Fatal(err)
	}
	w.own(filepath.Dir(w.SignerSocket()), w.opts.SignerUID)
	w.own(w.SignerDir(), w.opts.SignerUID)
	w.own(w.ServerDir(), w.opts.ServerUID)
}

// processOf starts a process of a user; 0 is the test's own.
func (w *World) processOf(uid uint32, name, program string, args ...string) *Process {
	w.T.Helper()
	if uid == 0 {
		return w.process(name, program, args...)
	}
	id := strconv.Itoa(int(uid))
	return w.process(name, parts.Program(w.T, "setpriv"),
		append([]string{"--reuid", id, "--regid", id, "--clear-groups", "--pdeathsig", "KILL", "--", program}, args...)...)
}

// own is chown -R; 0 leaves all as it is.
func (w *World) own(path string, uid uint32) {
	w.T.Helper()
	if uid == 0 {
		return
	}
	if err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(p, int(uid), int(uid))
	}); err != nil {
		w.T.Fatal(err)
	}
}

// StartSigner starts a signer with a user of its own, also again.
func (w *World) StartSigner() {
	w.T.Helper()
	w.Signer = w.processOf(w.opts.SignerUID, "signer", w.signet, "signer", "--data-dir", w.SignerDir(),
		"--listen", w.SignerSocket(), "--server-user", strconv.Itoa(int(w.opts.ServerUID)))
}
