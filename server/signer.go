package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"signet.example/api"
	"signet.example/ca"
)

// SignerConfig is what the signer process is told on its command line.
type SignerConfig struct {
	// DataDir of the server; the authority is in its folder "ca".
	DataDir string
	// PasswordFile holds the password of the key files; only the signer reads it.
	PasswordFile string
	// Profiles bounds lifetimes and keys.
	Profiles ca.Profiles
	// Clock is time.Now if nil.
	Clock func() time.Time
	Log   *slog.Logger
}

// RunSigner serves api.Signer on conn until conn closes or ctx ends.
func RunSigner(ctx context.Context, cfg SignerConfig, conn net.Conn) error {
	return errors.New("not written yet")
}

// SignerConn is the socket that StartSigner gave this process as fd 3.
func SignerConn() (net.Conn, error) { return nil, errors.New("not written yet") }

// SignerOptions is what StartSigner may be told.
type SignerOptions struct {
	Log    *slog.Logger
	Stderr io.Writer
}

// SignerProcess is the running signer, restarted when it dies.
type SignerProcess struct{}

// StartSigner runs exe with args as the signer process and waits until it answers.
func StartSigner(ctx context.Context, exe string, args []string, opts SignerOptions) (*SignerProcess, error) {
	return nil, errors.New("not written yet")
}

// Client speaks to the signer that runs now.
func (p *SignerProcess) Client() api.SignerClient { return nil }

// Close stops the signer and waits for it.
func (p *SignerProcess) Close() error { return nil }
