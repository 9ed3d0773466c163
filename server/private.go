package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"signet.example/internal/private"
	"signet.example/server/signer"
)

// guarded returns why anybody but own and root could get at the server's files.
func (c Config) guarded(own uint32) error {
	if _, err := os.Lstat(c.DataDir); err != nil {
		return fmt.Errorf("%w (is it a data directory that `signet init` made?)", err)
	}
	if err := private.Ours(c.DataDir, own); err != nil {
		return err
	}
	errs := []error{
		private.Folder(c.DataDir, own),
		private.Folder(filepath.Dir(c.AdminSocket), own),
	}
	for _, g := range c.PolicyGit {
		errs = append(errs, g.guarded(own))
	}
	if c.Signer == "" { // signer.Where says where there is no CA
		if _, err := os.Lstat(signer.Folder(c.DataDir).CA()); errors.Is(err, fs.ErrNotExist) {
			return errors.Join(errs...)
		}
		errs = append(errs, private.SecretTree(signer.Folder(c.DataDir).CA(), own))
		errs = append(errs, private.Guarded(c.PasswordFile, own)) // its mode: readPassword
	}
	return errors.Join(errs...)
}
