package signer

import (
	"log/slog"
	"net"

	"signet.example/internal/unixsock"
)

// Internals of the two ends of the signer's socket.
var (
	MakePassword = makePassword
	ReadPassword = readPassword
)

// Private reports what is wrong with the files of a signer of one user for a
// server of another.
func Private(cfg Config, own, server uint32) error {
	return cfg.Complete().guarded(own, server)
}

// OnlyUser is the listener of a signer for one user.
func OnlyUser(l net.Listener, uid uint32) net.Listener {
	return &userListener{Listener: l, uid: uid, log: slog.New(slog.DiscardHandler)}
}

// Expects reports whether a server takes a process of a user for its signer.
func Expects(expected string, uid uint32) error {
	allow, err := expects(expected)
	if err != nil {
		return err
	}
	return allow(unixsock.Peer{UID: uid})
}

// DialAny connects to a signer whatever its user.
func DialAny(target string) (*Remote, error) {
	return dial(target, slog.New(slog.DiscardHandler), func(unixsock.Peer) error { return nil })
}
