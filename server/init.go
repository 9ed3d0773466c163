package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"signet.example/identity"
	"signet.example/internal/private"
	"signet.example/server/signer"
	"signet.example/store"
)

// InitConfig says what Init makes.
type InitConfig struct {
	// TrustDomain of all identities; it cannot be changed later.
	TrustDomain string
	// DataDir to make. It may exist, if it is empty or holds only the password.
	DataDir string
	// SignerDir gets the CA, DataDir by default. A signer with a user of its own
	// has its own folder, which the server's user cannot read.
	SignerDir string
	// PasswordFile encrypts the CA's keys, <signer_dir>/password by default. It is
	// made with a random password where it does not exist.
	PasswordFile string
	// ConfineURIs: see signer.Init.
	ConfineURIs bool
}

// Init makes a server's data directory and a signer's: an empty store, and the CA
// with its first root set. Where one of them exists nothing is touched.
func Init(ctx context.Context, cfg InitConfig) error {
	td, err := identity.ParseTrustDomain(cfg.TrustDomain)
	if err != nil {
		return err
	}
	if cfg.DataDir == "" {
		return errors.New("no data directory given")
	}
	cfg.SignerDir = cmp.Or(cfg.SignerDir, cfg.DataDir)
	cfg.PasswordFile = cmp.Or(cfg.PasswordFile, signer.Folder(cfg.SignerDir).Password())
	authority, db := signer.Folder(cfg.SignerDir).CA(), dataDir(cfg.DataDir).store()
	for _, p := range []string{authority, db} {
		if _, err := os.Lstat(p); err == nil {
			return fmt.Errorf("%s exists: a trust domain is made once; choose another data directory", p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, p := range []string{cfg.DataDir, cfg.SignerDir} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return err
		}
		if err := private.Folder(p, private.Self()); err != nil {
			return err
		}
	}
	if err := signer.Init(td, cfg.SignerDir, cfg.PasswordFile, cfg.ConfineURIs); err != nil {
		return err
	}
	s, err := store.Create(ctx, db)
	if err != nil {
		return fmt.Errorf("make the store %s: %w", db, err)
	}
	return s.Close()
}
