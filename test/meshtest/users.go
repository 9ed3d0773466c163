package meshtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"signet.example/test/parts"
)

// SignerDir and SignerSocket are where a signer with a user of its own has its things.
func (w *World) SignerDir() string { return filepath.Join(w.Dir, "signer") }

// SignerSocket is in a folder that everybody may enter and the signer alone may change.
func (w *World) SignerSocket() string { return filepath.Join(w.Dir, "run", "signer.sock") }

// Part gives server and signer what is theirs, as an operator does after `signet init`.
func (w *World) Part() {
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

// Place copies a program to where every user can execute it.
func (w *World) Place(program, name string) string {
	w.T.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		w.T.Fatal(err)
	}
	dir := filepath.Join(w.Dir, "bin")
	placed := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(placed, content, 0o755)); err != nil {
		w.T.Fatal(err)
	}
	return placed
}

// AgentConfig writes the agent's configuration and gives its path and the variable
// with a token, for a test that starts it in a way of its own. The agent is up once
// AwaitAgent returns.
func (w *World) AgentConfig() (path, token string) {
	w.T.Helper()
	_ = os.Remove(filepath.Join(w.AgentDir(), "addresses.json")) // from the last run
	return w.agentConfig(w.envoy), "SIGNET_TOKEN=" + w.Token()
}

// AwaitAgent waits until the agent and its proxies are ready.
func (w *World) AwaitAgent() {
	w.T.Helper()
	w.Await("agent", 20*time.Second, func() error { _, err := w.Addresses(w.AgentDir()); return err })
	w.AwaitProxies()
}

// StartAgentAs starts the agent by a command that makes it one of uid, and with a
// descriptor, of the file left-open, that is not for its children.
func (w *World) StartAgentAs(uid uint32, envoy string, command ...string) {
	w.T.Helper()
	config := w.agentConfig(envoy)
	left := w.write("left-open", "")
	for dir, mode := range map[string]os.FileMode{w.AgentDir(): 0o711, filepath.Join(w.Dir, "agent-data"): 0o700} {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, mode)); err != nil {
			w.T.Fatal(err)
		}
		w.own(dir, uid)
	}
	w.own(config, uid)
	w.startAgent([]string{"SECRET=not-for-children"}, "sh", append([]string{"-c", `exec 9<"$0"; exec "$@"`, left},
		append(command, "agent", "--config", config)...)...)
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
	w.startSigner("--data-dir", w.SignerDir(), "--listen", w.SignerSocket(), "--server-user", strconv.Itoa(int(w.opts.ServerUID)))
}

// StartSignerWith starts it with a configuration file.
func (w *World) StartSignerWith(path string) {
	w.T.Helper()
	w.own(path, w.opts.SignerUID)
	w.startSigner("--config", path)
}

func (w *World) startSigner(args ...string) {
	w.T.Helper()
	w.Signer = w.processOf(w.opts.SignerUID, "signer", w.signet, append([]string{"signer"}, args...)...)
}
