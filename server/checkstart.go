package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/attestation/nodes"
	"signet.example/internal/durable"
	"signet.example/internal/private"
	"signet.example/internal/tcpsock"
	"signet.example/internal/unixsock"
	"signet.example/server/issuance"
	"signet.example/server/signer"
	"signet.example/store"
)

// askSigner is how long the check of a start waits for a signer that is a service.
const askSigner = 10 * time.Second

// Check tries what a start of the server would try, and leaves nothing behind. What
// a server that runs with the same data_dir holds may be in use.
func Check(ctx context.Context, cfg Config) error {
	cfg = cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := cfg.guarded(private.Self()); err != nil {
		return fmt.Errorf("the server's files: %w", err)
	}
	_, err := nodes.Open(cfg.Join, nodes.Server{}) // which nobody asks for anything here
	if err == nil {
		_, err = issuersOf(cfg.Join)
	}
	errs := []error{private.Writable(cfg.DataDir), err}
	// The store first: a server that runs notes a record there after it is in the log.
	seen, err := store.Check(ctx, dataDir(cfg.DataDir).store())
	errs = append(errs, err)
	td, err := checkSigner(ctx, cfg, seen)
	if errs = append(errs, err); err == nil && cfg.TrustDomain != "" && cfg.TrustDomain != td.Name() {
		errs = append(errs, fmt.Errorf("trust_domain: is %q here and %q in the CA", cfg.TrustDomain, td.Name()))
	}
	runs := durable.Locked(filepath.Join(cfg.DataDir, lockFile))
	for _, at := range []struct{ key, address string }{{"listen", cfg.Listen}, {"metrics", cfg.Metrics}} {
		if at.address == "" {
			continue
		}
		if err := tcpsock.Try(ctx, at.address); err != nil && (!runs || !errors.Is(err, syscall.EADDRINUSE)) {
			errs = append(errs, fmt.Errorf("%s: %w", at.key, err))
		}
	}
	if runs {
		return errors.Join(errs...)
	}
	if err := unixsock.Try(ctx, cfg.AdminSocket); err != nil {
		errs = append(errs, fmt.Errorf("admin_socket: %w", err))
	}
	return errors.Join(errs...)
}

// checkSigner looks at the signer's files where the server starts it, and asks one
// that is a service of its own. A start would wait for one that does not answer.
func checkSigner(ctx context.Context, cfg Config, seen store.LogMark) (spiffeid.TrustDomain, error) {
	if err := cfg.signer().Placed(); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	if cfg.Signer == "" {
		found, err := signer.CheckFiles(signer.Config{DataDir: cfg.DataDir, PasswordFile: cfg.PasswordFile}, issuance.PositionOf(seen))
		if err == nil && found.Lacks {
			err = issuance.Judge(seen, found.Log, cfg.AcceptLog)
		}
		return found.TrustDomain, err
	}
	s, err := signer.Connect(cfg.Signer, cfg.SignerUser, slog.New(slog.DiscardHandler))
	if err != nil {
		return spiffeid.TrustDomain{}, err
	}
	defer func() { _ = s.Close() }() // it was only asked
	ctx, cancel := context.WithTimeout(ctx, askSigner)
	defer cancel()
	roots, err := issuance.Ask(ctx, s.Client(), seen, cfg.AcceptLog)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("signer: %w", err)
	}
	return roots.Set.TrustDomain, nil
}
