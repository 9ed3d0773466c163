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

	"signet.example/internal/durable"
	"signet.example/internal/private"
)

// readPassword takes the first line of a file that others cannot read.
func readPassword(path string) ([]byte, error) {
	if err := passwordMode(path); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("password file: %w", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("password file %s: the first line is empty", path)
	}
	return line, nil
}

// passwordMode lets a group read the password: service managers and container
// platforms hand secrets over that way.
func passwordMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("password file: %w", err)
	}
	if info.Mode().Perm()&0o027 != 0 {
		return fmt.Errorf("password file %s: mode %#o lets others in, want 0600 or 0640: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// makePassword reads the password, or makes 256 random bits where there is none.
func makePassword(path string) ([]byte, error) {
	if err := private.Folder(filepath.Dir(path), private.Self()); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if b, err := readPassword(path); !errors.Is(err, fs.ErrNotExist) {
		return b, err // as the signer will read it
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	b := []byte(base64.RawURLEncoding.EncodeToString(secret))
	if err := durable.WriteFile(path, append(slices.Clip(b), '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	return b, nil
}
