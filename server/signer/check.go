package signer

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
	"signet.example/internal/durable"
	"signet.example/internal/private"
	"signet.example/internal/unixsock"
)

// Check tries what Serve would try, and leaves nothing behind. The socket of a signer
// that runs with the same folder is not tried.
func Check(ctx context.Context, cfg Config) error {
	cfg = cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return err
	}
	uid, err := userID(cfg.ServerUser)
	if err != nil {
		return fmt.Errorf("server_user: %w", err)
	}
	if err := cfg.guarded(private.Self(), uid); err != nil {
		return fmt.Errorf("the signer's files: %w", err)
	}
	_, err = CheckFiles(cfg)
	if !durable.Locked(ca.LogPath(Folder(cfg.DataDir).CA())) {
		if free := unixsock.Try(ctx, cfg.Listen); free != nil {
			err = errors.Join(err, fmt.Errorf("listen: %w", free))
		}
	}
	return err
}

// CheckFiles looks at password, keys, certificates and the whole issuance log, and
// returns the trust domain that they are of.
func CheckFiles(cfg Config) (spiffeid.TrustDomain, error) {
	if err := harden(); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	dir := Folder(cfg.DataDir).CA()
	password, err := readPassword(cfg.PasswordFile)
	if err != nil {
		return spiffeid.TrustDomain{}, err
	}
	defer clear(password)
	td, err := ca.Check(dir, password, cfg.Profiles)
	return td, errors.Join(err, private.Writable(dir))
}
