package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"signet.example/ca"
	"signet.example/identity"
	"signet.example/internal/private"
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
	// ConfineURIs: see ca.Options.
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
	cfg.PasswordFile = cmp.Or(cfg.PasswordFile, dataDir(cfg.SignerDir).password())
	authority, db := dataDir(cfg.SignerDir).ca(), dataDir(cfg.DataDir).store()
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
		if err := private.Folder(p, self()); err != nil {
			return err
		}
	}
	password, err := makePassword(cfg.PasswordFile)
	if err != nil {
		return err
	}
	if err := ca.InitWith(authority, td, password, time.Now(), ca.Options{ConfineURIs: cfg.ConfineURIs}); err != nil {
		return fmt.Errorf("make the CA in %s: %w", authority, err)
	}
	s, err := store.Create(ctx, db)
	if err != nil {
		return fmt.Errorf("make the store %s: %w", db, err)
	}
	return s.Close()
}

// makePassword reads the password, or makes 256 random bits where there is none.
func makePassword(path string) ([]byte, error) {
	if err := private.Folder(filepath.Dir(path), self()); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	b, err := os.ReadFile(path)
	if err == nil {
		if err := passwordMode(path); err != nil {
			return nil, err
		}
		if b = bytes.TrimSpace(b); len(b) == 0 {
			return nil, fmt.Errorf("%s is empty", path)
		}
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("password: %w", err)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	b = []byte(base64.RawURLEncoding.EncodeToString(secret))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return slices.Clip(b), err
}
