// Package fault is why a call is refused, and what whoever calls is told of it: one
// sentinel for each kind, which every part of the server wraps, and in one place the
// gRPC code that each has and what of an error may leave the process. Pure values.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Kind is a kind of refusal, which a caller of the server's APIs can tell apart from
// the others. It is an error of its own where there is no more to say.
type Kind string

// Error implements error.
func (k Kind) Error() string { return string(k) }

// The gRPC code of each stands in Code, and nowhere else.
const (
	// Denied is returned when the caller may not do what it asks, and equally
	// when what it asks about does not exist: the two are not told apart (A27).
	Denied Kind = "not known to this agent"
	// Identity is returned when the caller did not prove who it is.
	Identity Kind = "not authenticated"
	// Invalid is returned when the request itself is at fault; a retry is useless.
	Invalid Kind = "invalid request"
	// NotFound is returned to operators only.
	NotFound Kind = "not found"
	// Conflict is returned when agents contradict each other.
	Conflict Kind = "contradiction"
	// Referenced is returned when something else still needs the object.
	Referenced Kind = "still referenced"
	// Limit is returned when the caller asks for too much at a time.
	Limit Kind = "too many requests, try again later"
	// Used is returned when evidence that is good once was used before (api.Used).
	Used Kind = "used before"
	// Unavailable is returned when a part that is needed is not there now.
	Unavailable Kind = "unavailable"
)

// New is an error of a kind with a message that the caller may see.
func New(kind Kind, format string, args ...any) error {
	return &reasoned{kind: kind, msg: fmt.Sprintf(format, args...)}
}

// Later is Limit to a caller that has a bucket of its own, and is told when there is
// enough in it: who guesses comes in vain, or late.
func Later(after time.Duration) error { return &limited{after} }

type limited struct{ after time.Duration }

func (*limited) Error() string { return Limit.Error() }
func (*limited) Unwrap() error { return Limit }

// GRPCStatus is how gRPC tells it.
func (l *limited) GRPCStatus() *status.Status {
	s := status.New(codes.ResourceExhausted, l.Error())
	detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(l.after)})
	if err != nil {
		return s // without it the caller guesses
	}
	return detailed
}

type reasoned struct {
	kind Kind
	msg  string
}

func (r *reasoned) Error() string { return r.msg }
func (r *reasoned) Unwrap() error { return r.kind }

// Code returns the gRPC code of an error.
func Code(err error) codes.Code {
	switch {
	case errors.Is(err, Denied):
		return codes.PermissionDenied
	case errors.Is(err, Identity):
		return codes.Unauthenticated
	case errors.Is(err, Invalid):
		return codes.InvalidArgument
	case errors.Is(err, NotFound):
		return codes.NotFound
	case errors.Is(err, Referenced), errors.Is(err, Conflict):
		return codes.FailedPrecondition
	case errors.Is(err, Used):
		return codes.AlreadyExists
	case errors.Is(err, Limit):
		return codes.ResourceExhausted
	case errors.Is(err, Unavailable):
		return codes.Unavailable
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Internal
}

// ToAgent is the error as an agent may see it: a status that is one already
// stays, ours tells its message, and anything else tells nothing of the inside.
func ToAgent(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := Code(err)
	if code == codes.Internal {
		return status.Error(code, "internal error; the server's log has it")
	}
	return status.Error(code, err.Error())
}

// ToOperator is the error as the operator may see it: in full.
func ToOperator(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(Code(err), err.Error())
}
