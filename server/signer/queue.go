package signer

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"signet.example/api"
)

const (
	// sharedCalls is how many shared calls of the signer are under way at most: one
	// may compute while the other waits for the disk.
	sharedCalls = 2
	// callSize is how many certificates a shared call carries, about.
	callSize = 64
	// aloneFrom is the size from which on a request goes by itself: small
	// requests must not queue behind a batch.
	aloneFrom = 16
	// callDeadline bounds a call that is nobody's alone.
	callDeadline = 10 * time.Second
)

// Queue asks the signer for several agents at once. A call costs two passages
// of the socket and two durable writes whatever it carries; what arrives while
// sharedCalls are under way goes together in the next. Who may have what was decided
// before, for each request by itself.
type Queue struct {
	signer api.SignerClient
	queue  chan *request
}

// request is one request in a shared call.
type request struct {
	items   []*api.SignItem
	results []*api.SignResult
	err     error
	done    chan struct{} // closed when results or err is there
}

func NewQueue(signer api.SignerClient) *Queue {
	return &Queue{signer: signer, queue: make(chan *request)}
}

// Issue is api.SignerClient's. When ctx ends first, what is signed nevertheless
// stands in the log and nobody has it, as when an answer is lost on its way.
func (q *Queue) Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	if len(req.GetItems()) >= aloneFrom {
		return q.signer.Issue(ctx, req)
	}
	r := &request{items: req.GetItems(), done: make(chan struct{})}
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

// Run serves the queue until ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	var g errgroup.Group
	for range sharedCalls {
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
func (q *Queue) gather(first *request) []*request {
	group := []*request{first}
	for n := len(first.items); n < callSize; {
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

// share makes one call for a group, and distributes the results.
func (q *Queue) share(ctx context.Context, group []*request) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
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
