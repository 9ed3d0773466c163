package upstream

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"signet.example/agent/svids"
	"signet.example/api"
)

// Issuer has batches of SVIDs issued over conn, each for a key that is made here and
// now, and takes what verifies by the trust of that moment.
func Issuer(conn grpc.ClientConnInterface, trust func() *svids.Trust) svids.Issuer {
	return func(ctx context.Context, names []svids.Name) ([]svids.Issued, error) {
		return issue(ctx, conn, trust, names)
	}
}

func issue(ctx context.Context, conn grpc.ClientConnInterface, trust func() *svids.Trust, names []svids.Name) ([]svids.Issued, error) {
	request := &api.IssueRequest{}
	keys := make([]*ecdsa.PrivateKey, len(names))
	for i, w := range names {
		key, csr, err := svids.NewKey()
		if err != nil {
			return nil, err
		}
		keys[i] = key
		request.Requests = append(request.Requests, &api.SVIDRequest{Entry: w.Entry, Csr: csr})
	}
	answer, err := api.NewAgentAPIClient(conn).Issue(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("issue: %w", err)
	}
	if len(answer.GetResults()) != len(names) {
		return nil, fmt.Errorf("%w: %d results for %d requests", svids.ErrBadAnswer, len(answer.GetResults()), len(names))
	}
	results := make([]svids.Issued, len(names))
	t, now := trust(), time.Now()
	for i, r := range answer.GetResults() {
		if r.GetError() != "" {
			results[i].Err = &svids.RefusedError{Text: r.GetError()}
			continue
		}
		s, err := svids.New(names[i].Entry, r.GetChain(), keys[i], t, now)
		if err == nil && s.ID != names[i].ID {
			err = fmt.Errorf("%w: it is of %s", svids.ErrBadAnswer, s.ID)
		}
		results[i] = svids.Issued{SVID: s, Err: err}
	}
	return results, nil
}
