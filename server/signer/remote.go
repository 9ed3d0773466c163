package signer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/internal/child"
	"signet.example/internal/decode"
	"signet.example/internal/retry"
	"signet.example/internal/unixsock"
)

// Remote is the connection to a signer that is a service of its own user. Its
// methods may be called from any number of goroutines.
// gRPC makes it again with back-off; while there is none, calls fail at once.
type Remote struct {
	*grpc.ClientConn
	log  *slog.Logger
	gone atomic.Bool // the last call found nobody: the log has it once
}

// Dial connects to the service that listens at target, unix:/path, and that the
// named user runs. It returns when the signer has answered for the first time.
func Dial(ctx context.Context, target, user string, log *slog.Logger) (*Remote, error) {
	s, err := Connect(target, user, log)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Connect is Dial without waiting: the first call shows whether somebody answers.
func Connect(target, user string, log *slog.Logger) (*Remote, error) {
	allow, err := expects(user)
	if err != nil {
		return nil, fmt.Errorf("signer_user: %w", err)
	}
	return dial(target, log, allow)
}

func dial(target string, log *slog.Logger, allow func(unixsock.Peer) error) (*Remote, error) {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(unixsock.Credentials(allow)),
		grpc.WithConnectParams(retry.Policy{First: restarting.First, Most: time.Second, Jitter: 0.2}.Connect(decode.Handshake)),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	return &Remote{ClientConn: conn, log: log}, err
}

// expects returns the check of who is at the other end: the expected user, or
// root. Without a name it is nobody: whoever else could make the socket would be
// our certificate authority.
func expects(expected string) (func(unixsock.Peer) error, error) {
	uid, err := child.LookupUID(expected)
	if err != nil {
		return nil, err
	}
	own := os.Geteuid()
	return func(p unixsock.Peer) error {
		switch {
		case int(p.UID) == own:
			return fmt.Errorf("the signer runs as the server's own user, uid %d: give it another, or have the server start it by leaving the key signer out", own)
		case p.UID != uid && p.UID != 0:
			return fmt.Errorf("uid %d listens there and not %s", p.UID, expected)
		}
		return nil
	}, nil
}

// await waits for the first answer. It first asks without patience, so that the
// log has the reason at once for whoever started the two the wrong way.
func (s *Remote) await(ctx context.Context) error {
	c := api.NewSignerClient(s)
	_, err := c.Authority(ctx, &api.AuthorityRequest{})
	if err == nil {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	_, err = c.Authority(wait, &api.AuthorityRequest{}, grpc.WaitForReady(true))
	if ctx.Err() != nil { // told to stop, which is no failure
		return ctx.Err()
	}
	return err
}

// Client speaks to the signer.
func (s *Remote) Client() *Client { return NewClient(s) }

// Invoke implements grpc.ClientConnInterface.
func (s *Remote) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return s.explain(ctx, s.ClientConn.Invoke(ctx, method, args, reply, opts...))
}

// NewStream implements grpc.ClientConnInterface.
func (s *Remote) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := s.ClientConn.NewStream(ctx, desc, method, opts...)
	return stream, s.explain(ctx, err)
}

// explain reports whose connection was not there, or was lost. In the latter case
// what was asked for may have been signed and recorded; it was not answered.
func (s *Remote) explain(ctx context.Context, err error) error {
	switch code := status.Code(err); code {
	case codes.OK:
		if s.gone.Swap(false) {
			s.log.InfoContext(ctx, "the signer answers")
		}
	case codes.Unavailable, codes.DeadlineExceeded:
		err = status.Errorf(code, "no answer from the signer at %s, whose log tells whom it refuses: %s", s.Target(), status.Convert(err).Message())
		if !s.gone.Swap(true) {
			s.log.WarnContext(ctx, "certificates cannot be issued now", slog.Any("err", err))
		}
	}
	return err
}
