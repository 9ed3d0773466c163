package server

import (
	"context"
	"log/slog"
	"net"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/internal/unixsock"
)

// Internals of the two ends of the signer's socket.
var (
	UserID      = userID
	NotifyReady = notifyReady
)

// PrivateSigner tells what is wrong with the files of a signer of one user for a
// server of another.
func PrivateSigner(cfg SignerConfig, own, server uint32) error {
	return cfg.Complete().guarded(own, server)
}

// PrivateServer tells what is wrong with a server's files.
func PrivateServer(cfg Config, own uint32) error { return cfg.Complete().guarded(own) }

// OnlyUser is the listener of a signer for one user.
func OnlyUser(l net.Listener, uid uint32) net.Listener {
	return &userListener{Listener: l, uid: uid, log: slog.New(slog.DiscardHandler)}
}

// MayBeSigner tells whether a server takes a process of a user for its signer.
func MayBeSigner(expected string, uid uint32) error {
	allow, err := signerUser(expected)
	if err != nil {
		return err
	}
	return allow(unixsock.Peer{UID: uid})
}

// DialAnySigner connects to a signer whatever its user.
func DialAnySigner(target string) (signing, error) {
	return dialSigner(target, slog.New(slog.DiscardHandler), func(unixsock.Peer) error { return nil })
}

// answers is a signer of which only the authority is asked.
type answers struct {
	api.SignerClient
	left []*api.AuthorityResponse
}

func (a *answers) Authority(context.Context, *api.AuthorityRequest, ...grpc.CallOption) (*api.AuthorityResponse, error) {
	next := a.left[0]
	a.left = a.left[1:]
	return next, nil
}

// FollowAuthority tells what a server makes of each of a signer's answers.
func FollowAuthority(ctx context.Context, said ...*api.AuthorityResponse) []error {
	errs := make([]error, len(said))
	a := &authority{signer: &answers{left: said}, changed: func() {}}
	for i := range errs {
		errs[i] = a.load(ctx)
	}
	return errs
}
