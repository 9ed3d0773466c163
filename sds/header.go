package sds

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// securityHeader must come with each call (SPIFFE Workload Endpoint 3): a
// server that was talked into a request to this socket cannot set it.
const securityHeader = "workload.spiffe.io"

// CheckHeader refuses a call whose security header is not there exactly once
// with exactly the value "true". It looks at nothing else, so that it can stand
// before any work for the caller.
func CheckHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(securityHeader); len(v) != 1 || v[0] != "true" {
		// SPIFFE Workload Endpoint 6: InvalidArgument, which clients do not retry.
		return status.Errorf(codes.InvalidArgument, "the call needs the metadata %q: %q, once", securityHeader, "true")
	}
	return nil
}
