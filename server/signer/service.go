package signer

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/net/netutil"

	"signet.example/internal/child"
	"signet.example/internal/private"
	"signet.example/internal/unixsock"
)

// maxConns is how many connections a signer serves at a time: the server's,
// and what is left of one that was killed.
const maxConns = 4

// Serve runs the signer as a service of its own user until ctx ends. Only
// processes of the server's user are served, by what the kernel says of each
// connection; the folder of the socket keeps everybody else from replacing it.
func Serve(ctx context.Context, cfg Config) error {
	cfg = cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	uid, err := child.LookupUID(cfg.ServerUser)
	if err != nil {
		return fmt.Errorf("server_user: %w", err)
	}
	if err := cfg.guarded(private.Self(), uid); err != nil {
		return fmt.Errorf("the signer's files: %w", err)
	}
	return serve(ctx, cfg, func() (net.Listener, error) {
		// The server is another user, so the file lets everybody knock.
		l, err := unixsock.Listen(ctx, cfg.Listen, 0o666)
		if err != nil {
			return nil, err
		}
		cfg.Log.InfoContext(ctx, "ready", slog.String("listen", cfg.Listen), slog.Any("server_uid", uid))
		only := &userListener{Listener: l, uid: uid, log: cfg.Log}
		if err := unixsock.NotifyReady(ctx); err != nil {
			cfg.Log.ErrorContext(ctx, "the service manager was not told", slog.Any("err", err))
		}
		return netutil.LimitListener(only, maxConns), nil
	})
}

// userListener accepts the connections of one user; others are closed before a
// byte of theirs is read.
type userListener struct {
	net.Listener
	uid uint32
	log *slog.Logger
}

// Accept implements net.Listener.
func (l *userListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := unixsock.PeerOf(c)
		if err == nil && p.UID == l.uid {
			return c, nil
		}
		_ = c.Close() // nothing was said
		l.log.Warn("refused a connection: only the server's user is served", slog.Any("uid", p.UID), slog.Any("server_uid", l.uid), slog.Any("pid", p.PID), slog.Any("err", err))
	}
}
