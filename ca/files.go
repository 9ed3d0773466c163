package ca

import (
	"os"
	"path/filepath"

	"signet.example/internal/durable"
	"signet.example/internal/private"
)

// The files in an authority's folder.
const (
	rootKeyFile  = "root.key"      // encrypted PKCS#8; may be kept elsewhere, see Authority
	rootCertFile = "root.crt"      // PEM
	rootSetFile  = "root-set"      // signed document, see identity.RootSet
	issuingFile  = "issuing.pem"   // certificate and encrypted key together, so that one rename replaces both
	logFile      = "issuance.log"  // see Log
	markFile     = "issuance.mark" // see mark; markPath of logFile
)

// LogPath is where the authority in dir keeps its issuance log; Init makes it.
func LogPath(dir string) string { return filepath.Join(dir, logFile) }

// replaceFile is durable.WriteFile for the files of an authority, mode 0600. So is that of
// root.crt, which is public: one rule reads them all, and none is let through by its name.
// The folder is 0700, so that a wider mode would give it to nobody.
func replaceFile(path string, content []byte) error {
	return durable.WriteFile(path, content, 0o600)
}

// readPrivate reads a file that nobody else may read or change.
func readPrivate(path string) ([]byte, error) {
	if err := private.Secret(path, uint32(os.Geteuid())); err != nil { //nolint:gosec // a uid has 32 bits
		return nil, err
	}
	return os.ReadFile(path)
}
