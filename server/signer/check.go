package signer

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/ca"
	"signet.example/internal/child"
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
	uid, err := child.LookupUID(cfg.ServerUser)
	if err != nil {
		return fmt.Errorf("server_user: %w", err)
	}
	if err := cfg.guarded(private.Self(), uid); err != nil {
		return fmt.Errorf("the signer's files: %w", err)
	}
	_, err = CheckFiles(cfg, nil)
	if !durable.Locked(ca.LogPath(Folder(cfg.DataDir).CA())) {
		if free := unixsock.Try(ctx, cfg.Listen); free != nil {
			err = errors.Join(err, fmt.Errorf("listen: %w", free))
		}
	}
	return err
}

// Found is what CheckFiles found.
type Found struct {
	TrustDomain spiffeid.TrustDomain
	Log         *api.LogPosition // the end of the issuance log
	Lacks       bool             // what was seen is not in it
}

// CheckFiles looks at password, keys, certificates, the whole issuance log and its
// mark. seen is how far the server has seen the log; nil is not at all.
func CheckFiles(cfg Config, seen *api.LogPosition) (Found, error) {
	if err := harden(); err != nil {
		return Found{}, err
	}
	dir := Folder(cfg.DataDir).CA()
	password, err := readPassword(cfg.PasswordFile)
	if err != nil {
		return Found{}, err
	}
	defer clear(password)
	var at *ca.Position
	if seen != nil {
		p, err := logPosition(seen)
		if err != nil {
			return Found{}, err
		}
		at = &p
	}
	found, err := ca.Check(dir, password, cfg.Profiles, at)
	return Found{
		TrustDomain: found.TrustDomain, Lacks: found.Lacks != nil,
		Log: &api.LogPosition{Sequence: found.Head.Sequence, Hash: found.Head.Hash[:]},
	}, errors.Join(err, private.Writable(dir))
}
