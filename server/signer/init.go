package signer

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
	"signet.example/internal/private"
)

// Init makes the CA of a trust domain in a signer's folder, which exists, with its
// first root set and an empty log. The password that encrypts its keys is read
// from a file, which is made with a random one where there is none. confineURIs
// has the CA's certificates permit the trust domain's URIs alone: see ca.Options.
func Init(td spiffeid.TrustDomain, dir, passwordFile string, confineURIs bool) error {
	password, err := makePassword(passwordFile)
	if err != nil {
		return err
	}
	authority := Folder(dir).CA()
	if err := ca.InitWith(authority, td, password, time.Now(), ca.Options{ConfineURIs: confineURIs}); err != nil {
		return fmt.Errorf("make the CA in %s: %w", authority, err)
	}
	return nil
}

// makePassword reads the password, or makes 256 random bits where there is none.
func makePassword(path string) ([]byte, error) {
	if err := private.Folder(filepath.Dir(path), private.Self()); err != nil {
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
