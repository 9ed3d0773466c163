package join

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"signet.example/identity"
	"signet.example/internal/durable"
	"signet.example/internal/private"
)

// The files of data_dir (docs/decisions/018).
const (
	hostKeyFile  = "host.key"   // PKCS#8, PEM
	standingFile = "agent.json" // see kept
	keptVersion  = 1
	// mostKept bounds what is read of either file; the largest root set has 256 KiB.
	mostKept = 1 << 20
)

// Dir is the folder of what an agent keeps, so that its host is known again
// after a restart: the host key, and by what the servers are known. It is held
// against a second agent until Close.
type Dir struct {
	path string
	held *os.File
}

// kept is the standing of the host with the servers. It is written before the
// join, with the pin of the token alone: an agent that ends between the server's
// answer and the next write then comes back by its key.
type kept struct {
	Version int `json:"version"`
	// HostKey is the SHA-256 of the host key's SubjectPublicKeyInfo, by which the
	// two files belong together.
	HostKey []byte `json:"host_key"`
	// Pin is that of the key which signs root sets.
	Pin []byte `json:"pin"`
	// AgentID and RootSet are empty before the server's first answer.
	AgentID string `json:"agent_id,omitempty"`
	RootSet string `json:"root_set,omitempty"`
	// Refused is true where the newest join was refused: no server knows the host key by it.
	Refused bool `json:"refused,omitempty"`
}

var errDataDirInUse = errors.New("is in use: is another agent running?")

// OpenDir makes the folder where it is missing, and refuses one that others
// can read or change, or that another agent holds.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if err := unshare(path); err != nil {
		return nil, err
	}
	if err := private.SecretTree(path, private.Self()); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := durable.Lock(f); err != nil {
		_ = f.Close() // only opened
		if errors.Is(err, durable.ErrLocked) {
			err = fmt.Errorf("%s %w", path, errDataDirInUse)
		}
		return nil, err
	}
	return &Dir{path: path, held: f}, nil
}

// unshare takes from others what they may read of an empty folder of our own, as container runtimes make one
// that is to be mounted and missing (root, 0755). Any other folder is left as it is, for [private.SecretTree] to judge.
func unshare(path string) error {
	if private.Folder(path, private.Self()) != nil {
		return nil // where others say what path names, nothing is changed there
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil // a link, which is judged with where it leads
	}
	defer func() { _ = f.Close() }() // only read
	if !emptyAndShared(f) {
		return nil
	}
	return f.Chmod(0o700)
}

// emptyAndShared reports whether a folder is our own and empty, and others may read it: nothing was in it that they
// could have read, and since they cannot write to it, they have put nothing there.
func emptyAndShared(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	mode, owner := info.Mode().Perm(), info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // Linux
	if mode&0o022 != 0 || mode&0o055 == 0 || owner.Uid != private.Self() {
		return false
	}
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// Close lets go of it.
func (d *Dir) Close() { _ = d.held.Close() } // only opened

// Writable tries what a join will do.
func (d *Dir) Writable() error {
	probe := filepath.Join(d.path, ".probe")
	return errors.Join(durable.WriteFile(probe, nil, 0o600), os.Remove(probe))
}

// CheckDir looks at a folder that is there without locking it: whether the host has
// joined from it, or an agent runs by it.
func CheckDir(path string) (joined, running bool, err error) {
	check := private.SecretTree
	if f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0); err == nil {
		if emptyAndShared(f) { // a start would close it
			check = private.Folder
		}
		_ = f.Close() // only read
	}
	if err := check(path, private.Self()); err != nil {
		return false, false, err
	}
	if err := private.Writable(path); err != nil {
		return false, false, err
	}
	if durable.Locked(path) {
		return true, true, nil
	}
	_, k, err := (&Dir{path: path}).load()
	return len(k.Pin) > 0, false, err
}

// load returns the host key with what is kept beside it; without a key nobody
// has joined from here. What is there and is not whole is refused and never made
// anew: the host would come back as a stranger, and its old standing stay open.
func (d *Dir) load() (*ecdsa.PrivateKey, kept, error) {
	var k kept
	text, err := d.read(hostKeyFile)
	document, kerr := d.read(standingFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && errors.Is(kerr, fs.ErrNotExist):
		return nil, k, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, k, d.broken(hostKeyFile, errors.New("it is missing, and "+standingFile+" is there"))
	case err != nil:
		return nil, k, d.broken(hostKeyFile, err)
	}
	key, err := parseHostKey(text)
	if err != nil {
		return nil, k, d.broken(hostKeyFile, err)
	}
	if errors.Is(kerr, fs.ErrNotExist) { // ended between the two writes of begin
		return key, k, nil
	}
	if kerr == nil {
		k, kerr = parseKept(document, key)
	}
	if kerr != nil {
		return nil, k, d.broken(standingFile, kerr)
	}
	return key, k, nil
}

func (d *Dir) broken(file string, err error) error {
	return fmt.Errorf("%s: %w: put the right file back, or move %s away and join this host as a new agent with a new token, or by evidence of its own",
		filepath.Join(d.path, file), err, d.path)
}

func (d *Dir) read(name string) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(d.path, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a file"))
	}
	content, err := io.ReadAll(io.LimitReader(f, mostKept+1))
	if err == nil && len(content) > mostKept {
		err = fmt.Errorf("longer than %d bytes", mostKept)
	}
	return content, err
}

// parseHostKey takes what begin writes, and nothing else.
func parseHostKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one PEM block PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS#8 private key") // what was read stays out of the log
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("want an ECDSA P-256 key")
	}
	return key, nil
}

func parseKept(document []byte, key *ecdsa.PrivateKey) (kept, error) {
	var k kept
	if err := json.Unmarshal(document, &k); err != nil {
		return k, err
	}
	own, err := spkiSum(key)
	switch {
	case err != nil:
		return k, err
	case k.Version != keptVersion:
		return k, fmt.Errorf("version %d, this agent reads %d", k.Version, keptVersion)
	case !bytes.Equal(k.HostKey, own):
		return k, errors.New("it is of another host key than the one in " + hostKeyFile)
	case len(k.Pin) != sha256.Size:
		return k, errors.New("it has no pin")
	case (k.AgentID == "") != (k.RootSet == ""):
		return k, errors.New("agent_id and root_set go together")
	case k.RootSet == "":
		return k, nil
	}
	if _, err := identity.ParseRootSet([]byte(k.RootSet), k.Pin); err != nil {
		return k, err
	}
	return k, nil
}

// begin keeps a host key and the pin of the token that it will join by. It is on
// disk when begin returns: a key that a server enrols must not be lost.
func (d *Dir) begin(key *ecdsa.PrivateKey, pin []byte) (kept, error) {
	own, err := spkiSum(key)
	if err != nil {
		return kept{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return kept{}, fmt.Errorf("host key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := durable.WriteFile(filepath.Join(d.path, hostKeyFile), text, 0o600); err != nil {
		return kept{}, err
	}
	k := kept{Version: keptVersion, HostKey: own, Pin: pin}
	return k, d.save(k)
}

func (d *Dir) save(k kept) error {
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(d.path, standingFile), append(b, '\n'), 0o600)
}

func spkiSum(key *ecdsa.PrivateKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return sum[:], nil
}
