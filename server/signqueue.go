package server

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"signet.example/api"
)

const (
	// signCalls is how many shared calls of the signer are under way at most: one
	// may compute while the other waits for the disk.
	signCalls = 2
	// signShared is how many certificates a shared call carries, about.
	signShared = 64
	// signAlone is the size from which on a request goes by itself: who asks for
	// little is not to wait for somebody's batch.
	signAlone = 16
	// signDeadline bounds a call that is nobody's alone.
	signDeadline = 10 * time.Second
)

// signQueue asks the signer for several agents at once. A call costs two passages
// of the socket and two durable writes whatever it carries; what arrives while
// signCalls are under way goes together in the next. Who may have what was decided
// before, for each request by itself.
type signQueue struct {
	signer api.SignerClient
	queue  chan *signRequest
}

// signRequest is one request in a shared call.
type signRequest struct {
	items   []*api.SignItem
	results []*api.SignResult
	err     error
	done    chan struct{} // closed when results or err is there
}

func newSignQueue(signer api.SignerClient) *signQueue {
	return &signQueue{signer: signer, queue: make(chan *signRequest)}
}

// Issue is api.SignerClient's. When ctx ends first, what is signed nevertheless
// stands in the log and nobody has it, as when an answer is lost on its way.
func (q *signQueue) Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	if len(req.GetItems()) >= signAlone {
		return q.signer.Issue(ctx, req)
	}
	r := &signRequest{items: req.GetItems(), done: make(chan struct{})}
	select {
	case q.queue <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-r.done:
		return &api.SignResponse{Results: r.results}, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run serves the queue until ctx ends.
func (q *signQueue) run(ctx context.Context) error {
	var g errgroup.Group
	for range signCalls {
		g.Go(func() error {
			for {
				select {
				case first := <-q.queue:
					q.share(ctx, q.gather(first))
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return g.Wait()
}

// gather takes what waits besides.
func (q *signQueue) gather(first *signRequest) []*signRequest {
	group := []*signRequest{first}
	for n := len(first.items); n < signShared; {
		select {
		case r := <-q.queue:
			group = append(group, r)
			n += len(r.items)
		default:
			return group
		}
	}
	return group
}

// share makes one call for a group, and gives everyone what is his.
func (q *signQueue) share(ctx context.Context, group []*signRequest) {
	ctx, cancel := context.WithTimeout(ctx, signDeadline)
	defer cancel()
	all := &api.SignRequest{}
	for _, r := range group {
		all.Items = append(all.Items, r.items...)
	}
	resp, err := q.signer.Issue(ctx, all)
	results := resp.GetResults()
	if err == nil && len(results) != len(all.GetItems()) {
		err = fmt.Errorf("it answered %d of %d requests", len(results), len(all.GetItems()))
	}
	for _, r := range group {
		if r.err = err; err == nil {
			n := len(r.items)
			r.results, results = results[:n:n], results[n:]
		}
		close(r.done)
	}
}
