package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"signet.example/server/signer"
)

// signing is a signer in reach: our child, or the other end of a connection.
type signing interface {
	Client() *signer.Client
	Close() error
}

// reachSigner connects to the signer that is configured, or starts one.
func reachSigner(ctx context.Context, cfg Config, log *slog.Logger) (signing, error) {
	if cfg.Signer != "" {
		return dialSigner(ctx, cfg, log)
	}
	return startSigner(ctx, cfg, log)
}

// startSigner runs the same binary again as `signet signer`.
func startSigner(ctx context.Context, cfg Config, log *slog.Logger) (*signer.Process, error) {
	if err := hasCA(cfg.DataDir); err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// It starts in another folder.
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	password, err := filepath.Abs(cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	args := []string{"signer", "--data-dir", dir, "--password-file", password}
	return signer.Start(ctx, exe, args, signer.Options{Log: log, Stderr: os.Stderr})
}

// dialSigner connects to the signer that is a service of its own user.
func dialSigner(ctx context.Context, cfg Config, log *slog.Logger) (*signer.Remote, error) {
	if err := hasNoCA(cfg.DataDir); err != nil {
		return nil, err
	}
	return signer.Dial(ctx, cfg.Signer, cfg.SignerUser, log)
}

func hasCA(dataDir string) error {
	if _, err := os.Stat(signer.Folder(dataDir).CA()); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no CA in %s: a signer that is a service of its own is named with --signer", dataDir)
	}
	return nil
}

func hasNoCA(dataDir string) error {
	files := signer.Folder(dataDir)
	for _, p := range []string{files.CA(), files.Password()} {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is where the server's own user reads it: it belongs into the signer's folder, and nowhere else", p)
		}
	}
	return nil
}
