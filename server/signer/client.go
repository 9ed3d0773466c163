package signer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"signet.example/api"
)

// Client asks a signer. It may be used from any number of goroutines.
//
// A service may be of a version from before api.Profile and api.RecordKind, since the
// two are updated one after the other: Client names each profile beside it, and gives
// records the profile and the kind that they name.
type Client struct{ rpc api.SignerClient }

// NewClient returns a client of a connection.
func NewClient(conn grpc.ClientConnInterface) *Client { return &Client{api.NewSignerClient(conn)} }

// Issue has a batch signed. The answer has one result for each item, in their order,
// and what it has of certificates is in the log, durably. After an error nothing is
// known of any item; what was signed nevertheless is in the log and nobody has it.
func (c *Client) Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	for _, item := range req.GetItems() {
		if item.GetProfileName() == "" {
			item.ProfileName = ProfileName(item.GetProfile())
		}
	}
	resp, err := c.rpc.Issue(ctx, req)
	if err != nil {
		return nil, err
	}
	if asked, got := len(req.GetItems()), len(resp.GetResults()); asked != got {
		return nil, fmt.Errorf("its answer has %d results for %d requests", got, asked)
	}
	return resp, nil
}

// Authority returns what the signer signs with, and how far its log goes.
func (c *Client) Authority(ctx context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	return c.rpc.Authority(ctx, req)
}

// ReadLog calls each with the log's records from a number on, in their order, until
// it fails or the log ends, which is nil. With follow the log ends with the signer.
func (c *Client) ReadLog(ctx context.Context, from uint64, follow bool, each func(*api.LogRecord) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of a stream that is not read to its end
	stream, err := c.rpc.ReadLog(ctx, &api.ReadLogRequest{From: from, Follow: follow})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.GetProfile() == api.Profile_PROFILE_UNSPECIFIED {
			r.Profile = profileOf(r.GetProfileName())
		}
		if r.GetKind() == api.RecordKind_RECORD_KIND_UNSPECIFIED {
			r.Kind = kindOf(r.GetKindName())
		}
		if err := each(r); err != nil {
			return err
		}
	}
}
