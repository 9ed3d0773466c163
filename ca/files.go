package ca

import (
	"errors"
	"os"
	"path/filepath"

	"signet.example/internal/private"
)

// The files in an authority's folder.
const (
	rootKeyFile  = "root.key"     // encrypted PKCS#8; may be kept elsewhere, see Authority
	rootCertFile = "root.crt"     // PEM
	rootSetFile  = "root-set"     // signed document, see identity.RootSet
	issuingFile  = "issuing.pem"  // certificate and encrypted key together, so that one rename replaces both
	logFile      = "issuance.log" // see Log
)

// LogPath is where the authority in dir keeps its issuance log; Init makes it.
func LogPath(dir string) string { return filepath.Join(dir, logFile) }

// writeFile makes a new file, mode 0600, and returns when it is on disk.
func writeFile(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// replaceFile puts content in the place of path: whoever reads it, also after a
// crash, sees the whole old or the whole new file.
func replaceFile(path string, content []byte) error {
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a crash
		return err
	}
	if err := writeFile(next, content); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readPrivate reads a file that nobody else may read or change.
func readPrivate(path string) ([]byte, error) {
	if err := private.Secret(path, uint32(os.Geteuid())); err != nil { //nolint:gosec // a uid has 32 bits
		return nil, err
	}
	return os.ReadFile(path)
}
