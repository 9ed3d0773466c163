package sds

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The methods of the profiles that this version lacks. The header is checked
// all the same: it guards the endpoint, not a method (Workload Endpoint 3).

// FetchJWTSVID answers Unimplemented.
func (w *WorkloadAPI) FetchJWTSVID(ctx context.Context, _ *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	return nil, unimplemented(ctx, "JWT-SVIDs")
}

// ValidateJWTSVID answers Unimplemented.
func (w *WorkloadAPI) ValidateJWTSVID(ctx context.Context, _ *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	return nil, unimplemented(ctx, "JWT-SVIDs")
}

// FetchJWTBundles answers Unimplemented.
func (w *WorkloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	return unimplemented(stream.Context(), "JWT bundles")
}

// FetchWITSVID answers Unimplemented (Workload API 7: MUST where the profile is not supported).
func (w *WorkloadAPI) FetchWITSVID(_ *workload.WITSVIDRequest, stream grpc.ServerStreamingServer[workload.WITSVIDResponse]) error {
	return unimplemented(stream.Context(), "WIT-SVIDs")
}

// FetchWITBundles answers Unimplemented.
func (w *WorkloadAPI) FetchWITBundles(_ *workload.WITBundlesRequest, stream grpc.ServerStreamingServer[workload.WITBundlesResponse]) error {
	return unimplemented(stream.Context(), "WIT bundles")
}

func unimplemented(ctx context.Context, what string) error {
	if err := CheckHeader(ctx); err != nil {
		return err
	}
	return status.Errorf(codes.Unimplemented, "this version of Signet serves X.509-SVIDs and X.509 bundles, no %s", what)
}
