package api

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Elsewhere reports whether a server refused an agent because another one with
// the same host key is connected.
func Elsewhere(err error) bool { return status.Code(err) == codes.FailedPrecondition }

// Used reports whether a server refused evidence of a host because it was used before: other
// evidence may be good, and whoever used it may have been this very host, which had no answer.
func Used(err error) bool { return status.Code(err) == codes.AlreadyExists }

// Untaken reports whether a server did not take what an agent sent, and will not the next time.
func Untaken(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.Internal:
		return true
	}
	return false
}

// Banned reports whether the servers will not have an agent again: that is all that
// PermissionDenied means to a session and to a host key that has joined. The agent
// then ends, and its keys, sockets and proxies with it (A30): waiting would only
// keep identities in use that somebody wants out of it.
func Banned(err error) bool { return status.Code(err) == codes.PermissionDenied }
