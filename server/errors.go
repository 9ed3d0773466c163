package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/store"
)

// Errors that a caller of this package's APIs can tell apart. The gRPC code of
// each stands in codeOf, and nowhere else.
var (
	// errDenied is returned when the caller may not do what it asks, and equally
	// when what it asks about does not exist: the two are not told apart (A27).
	errDenied = errors.New("not known to this agent")
	// errIdentity is returned when the caller did not prove who it is.
	errIdentity = errors.New("not authenticated")
	// errInvalid is returned when the request itself is at fault; a retry is useless.
	errInvalid = errors.New("invalid request")
	// errNotFound is returned to operators only.
	errNotFound = errors.New("not found")
	// errConflict is returned when agents contradict each other.
	errConflict = errors.New("contradiction")
	// errReferenced is returned when something else still needs the object.
	errReferenced = errors.New("still referenced")
	// errLimit is returned when the caller asks for too much at a time.
	errLimit = errors.New("too many requests, try again later")
	// errUnavailable is returned when a part that is needed is not there now.
	errUnavailable = errors.New("unavailable")
)

// reason attaches one of the sentinels to a message that the caller may see.
func reason(kind error, format string, args ...any) error {
	return &reasoned{kind: kind, msg: fmt.Sprintf(format, args...)}
}

// limited is errLimit to a caller that has a bucket of its own, and is told when
// there is enough in it: who guesses comes in vain, or late.
type limited struct{ after time.Duration }

func (*limited) Error() string { return errLimit.Error() }
func (*limited) Unwrap() error { return errLimit }

// GRPCStatus is how gRPC tells it.
func (l *limited) GRPCStatus() *status.Status {
	s := status.New(codes.ResourceExhausted, l.Error())
	told, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(l.after)})
	if err != nil {
		return s // without it the caller guesses
	}
	return told
}

type reasoned struct {
	kind error
	msg  string
}

func (r *reasoned) Error() string { return r.msg }
func (r *reasoned) Unwrap() error { return r.kind }

// codeOf returns the gRPC code of an error.
func codeOf(err error) codes.Code {
	switch {
	case errors.Is(err, errDenied), errors.Is(err, store.ErrToken):
		return codes.PermissionDenied
	case errors.Is(err, errIdentity):
		return codes.Unauthenticated
	case errors.Is(err, errInvalid):
		return codes.InvalidArgument
	case errors.Is(err, errNotFound):
		return codes.NotFound
	case errors.Is(err, errReferenced), errors.Is(err, errConflict):
		return codes.FailedPrecondition
	case errors.Is(err, errLimit):
		return codes.ResourceExhausted
	case errors.Is(err, errUnavailable):
		return codes.Unavailable
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Internal
}

// agentError is the error as an agent may see it: a status that is one already
// stays, ours tells its message, and anything else tells nothing of the inside.
func agentError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codeOf(err)
	if code == codes.Internal {
		return status.Error(code, "internal error; the server's log has it")
	}
	return status.Error(code, err.Error())
}

// adminError is the error as the operator may see it: in full.
func adminError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codeOf(err), err.Error())
}
