package signer

import (
	"context"

	"google.golang.org/grpc"

	"signet.example/api"
)

// before is a client of a service that may be of a version from before api.Profile:
// the two are updated one after the other. A child is of our own version.
type before struct{ api.SignerClient }

// Issue names each profile, too.
func (c before) Issue(ctx context.Context, req *api.SignRequest, opts ...grpc.CallOption) (*api.SignResponse, error) {
	for _, item := range req.GetItems() {
		item.ProfileName = ProfileName(item.GetProfile())
	}
	return c.SignerClient.Issue(ctx, req, opts...)
}

// ReadLog gives each record the profile that it names.
func (c before) ReadLog(ctx context.Context, req *api.ReadLogRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[api.LogRecord], error) {
	stream, err := c.SignerClient.ReadLog(ctx, req, opts...)
	if err != nil {
		return nil, err
	}
	return named{stream}, nil
}

type named struct {
	grpc.ServerStreamingClient[api.LogRecord]
}

// Recv implements grpc.ServerStreamingClient.
func (s named) Recv() (*api.LogRecord, error) {
	r, err := s.ServerStreamingClient.Recv()
	if r.GetProfile() == api.Profile_PROFILE_UNSPECIFIED && r != nil {
		r.Profile = profileOf(r.GetProfileName())
	}
	return r, err
}
