package server

import (
	"bytes"
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
	"signet.example/store"
)

// InitConfig says what Init makes.
type InitConfig struct {
	// TrustDomain of all identities; it cannot be changed later.
	TrustDomain string
	// DataDir to make. It may exist, if it is empty or holds only the password.
	DataDir string
	// PasswordFile encrypts the CA's keys, <data_dir>/password by default. It is
	// made with a random password where it does not exist.
	PasswordFile string
}

// Init makes a data directory: the CA, its first root set and an empty store.
// Where one of them exists nothing is touched.
func Init(ctx context.Context, cfg InitConfig) error {
	td, err := identity.ParseTrustDomain(cfg.TrustDomain)
	if err != nil {
		return err
	}
	if cfg.DataDir == "" {
		return errors.New("no data directory given")
	}
	if cfg.PasswordFile == "" {
		cfg.PasswordFile = filepath.Join(cfg.DataDir, "password")
	}
	dir := dataDir(cfg.DataDir)
	for _, p := range []string{dir.ca(), dir.store()} {
		if _, err := os.Lstat(p); err == nil {
			return fmt.Errorf("%s exists: a trust domain is made once; choose another data directory", p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return err
	}
	password, err := makePassword(cfg.PasswordFile)
	if err != nil {
		return err
	}
	if err := ca.Init(dir.ca(), td, password, time.Now()); err != nil {
		return fmt.Errorf("make the CA in %s: %w", dir.ca(), err)
	}
	s, err := store.Create(ctx, dir.store())
	if err != nil {
		return fmt.Errorf("make the store %s: %w", dir.store(), err)
	}
	return s.Close()
}

// makePassword reads the password, or makes 256 random bits where there is none.
func makePassword(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil {
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
