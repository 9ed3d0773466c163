package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/internal/durable"
	"signet.example/internal/private"
	"signet.example/internal/unixsock"
	"signet.example/server/signer"
)

// Check tries what a start of the server would try, and leaves nothing behind. What
// a server that runs with the same data_dir holds is not tried beside it.
func Check(ctx context.Context, cfg Config) error {
	cfg = cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := cfg.guarded(private.Self()); err != nil {
		return fmt.Errorf("the server's files: %w", err)
	}
	errs := []error{private.Secret(dataDir(cfg.DataDir).store(), private.Self()), private.Writable(cfg.DataDir)}
	td, err := checkSigner(ctx, cfg)
	if errs = append(errs, err); err == nil && cfg.TrustDomain != "" && cfg.TrustDomain != td.Name() {
		errs = append(errs, fmt.Errorf("trust_domain: is %q here and %q in the CA", cfg.TrustDomain, td.Name()))
	}
	if durable.Locked(filepath.Join(cfg.DataDir, lockFile)) {
		return errors.Join(errs...)
	}
	for key, address := range map[string]string{"listen": cfg.Listen, "metrics": cfg.Metrics} {
		if address != "" {
			errs = append(errs, tryListen(ctx, key, address))
		}
	}
	if err := unixsock.Try(ctx, cfg.AdminSocket); err != nil {
		errs = append(errs, fmt.Errorf("admin_socket: %w", err))
	}
	return errors.Join(errs...)
}

// checkSigner looks at the signer's files where the server starts it, and asks one
// that is a service of its own. A start would wait for one that does not answer.
func checkSigner(ctx context.Context, cfg Config) (spiffeid.TrustDomain, error) {
	if cfg.Signer == "" {
		if err := hasCA(cfg.DataDir); err != nil {
			return spiffeid.TrustDomain{}, err
		}
		return signer.CheckFiles(signer.Config{DataDir: cfg.DataDir, PasswordFile: cfg.PasswordFile})
	}
	if err := hasNoCA(cfg.DataDir); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	s, err := signer.Connect(cfg.Signer, cfg.SignerUser, slog.New(slog.DiscardHandler))
	if err != nil {
		return spiffeid.TrustDomain{}, err
	}
	defer func() { _ = s.Close() }() // it was only asked
	ctx, cancel := context.WithTimeout(ctx, handshakeDeadline)
	defer cancel()
	a := &authority{changed: func() {}}
	resp, err := s.Client().Authority(ctx, &api.AuthorityRequest{}) // whatever its log has: only a start accepts one
	if err == nil {
		err = a.take(resp)
	}
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("signer: %w", err)
	}
	return a.roots().TrustDomain, nil
}

func tryListen(ctx context.Context, key, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return l.Close()
}
