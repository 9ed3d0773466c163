package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"signet.example/internal/private"
)

// guarded returns why the server's user, or anybody but our own and root, could
// get at what a signer's configuration names. A signer with a user of its own is
// worth what keeps the server's user out.
func (c SignerConfig) guarded(own, server uint32) error {
	switch server {
	case 0:
		return errors.New("the server's user is root, who reads every file here: run the server as another")
	case own:
		return fmt.Errorf("the signer runs as uid %d, and so does the server: whoever gets into the server could read the keys; give the signer a user of its own", own)
	}
	return errors.Join(
		private.Folder(filepath.Dir(c.Listen), own),
		private.Secret(c.PasswordFile, own),
		private.SecretTree(dataDir(c.DataDir).ca(), own),
	)
}

// guarded returns why anybody but own and root could get at the server's files.
func (c Config) guarded(own uint32) error {
	if _, err := os.Lstat(c.DataDir); err != nil {
		return fmt.Errorf("%w (is it a data directory that `signet init` made?)", err)
	}
	errs := []error{
		private.Folder(c.DataDir, own),
		private.Folder(filepath.Dir(c.AdminSocket), own),
	}
	for _, g := range c.PolicyGit {
		errs = append(errs, g.guarded(own))
	}
	if c.Signer == "" { // startSigner says where there is no CA
		if _, err := os.Lstat(dataDir(c.DataDir).ca()); errors.Is(err, fs.ErrNotExist) {
			return errors.Join(errs...)
		}
		errs = append(errs, private.SecretTree(dataDir(c.DataDir).ca(), own))
		errs = append(errs, private.Guarded(c.PasswordFile, own)) // its mode: readPassword
	}
	return errors.Join(errs...)
}

// self is this process's user.
func self() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a uid has 32 bits
