package signer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// Where is where a server's signer is: its child, whose CA is in the server's own
// folder, or a service of its own user.
type Where struct {
	// Socket of the service, unix:/path; empty for a child.
	Socket string
	// User must be at the other end of that socket, or root.
	User string
	// DataDir is the server's.
	DataDir string
	// PasswordFile opens the CA's key files, of a child.
	PasswordFile string
}

// Reached is a signer in reach: our child, or the other end of a connection.
type Reached interface {
	Client() *Client
	Close() error
}

// Reach connects to the service, or starts this executable again as `signet signer`.
func (w Where) Reach(ctx context.Context, log *slog.Logger) (Reached, error) {
	if err := w.Placed(); err != nil {
		return nil, err
	}
	if w.Socket != "" {
		return Dial(ctx, w.Socket, w.User, log)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// It starts in another folder.
	dir, err := filepath.Abs(w.DataDir)
	if err != nil {
		return nil, err
	}
	password, err := filepath.Abs(w.PasswordFile)
	if err != nil {
		return nil, err
	}
	args := []string{"signer", "--data-dir", dir, "--password-file", password}
	return Start(ctx, exe, args, Options{Log: log, Stderr: os.Stderr})
}

// Placed returns why the CA is not where this signer has it: in the server's folder for
// a child, and nowhere that the server reads for a service.
func (w Where) Placed() error {
	files := Folder(w.DataDir)
	if w.Socket == "" {
		if _, err := os.Stat(files.CA()); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no CA in %s: a signer that is a service of its own is named with --signer", w.DataDir)
		}
		return nil
	}
	for _, p := range []string{files.CA(), files.Password()} {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is where the server's own user reads it: it belongs into the signer's folder, and nowhere else", p)
		}
	}
	return nil
}
