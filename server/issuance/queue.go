package issuance

import (
	"context"
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
	// aloneFrom is the size from which on a request goes by itself: small requests
	// must not queue behind a batch.
	aloneFrom = 16
	// callDeadline bounds a call that is nobody's alone.
	callDeadline = 10 * time.Second
)

// Signer signs a batch: one result for each item, in their order. It is called from
// several goroutines. After an error nothing is known of any item.
type Signer interface {
	Sign(ctx context.Context, items []*api.SignItem) (Signed, error)
}

// Signed are results that nobody has before what goes before it is durable.
type Signed struct {
	results []*api.SignResult
	keep    func(context.Context) error
}

// NewSigned returns results that can be taken once keep returns nil. It is called by
// everyone who takes a part of them, from several goroutines.
func NewSigned(results []*api.SignResult, keep func(context.Context) error) Signed {
	return Signed{results, keep}
}

// Take returns the results when they may go out.
func (s Signed) Take(ctx context.Context) ([]*api.SignResult, error) {
	if err := s.keep(ctx); err != nil {
		return nil, err
	}
	return s.results, nil
}

// Queue asks the signer for several agents at once. A call costs two passages
// of the socket and two durable writes whatever it carries; what arrives while
// sharedCalls are under way goes together in the next. A call is over when the signer
// has answered: what else its results wait for is waited for by each who asked, beside
// the next calls. Who may have what was decided before, for each request by itself.
type Queue struct {
	signer Signer
	queue  chan *request
}

// request is one request in a shared call.
type request struct {
	items  []*api.SignItem
	signed Signed
	err    error
	done   chan struct{} // closed when signed or err is there
}

// NewQueue returns a queue before a signer. It answers while Run does.
func NewQueue(signer Signer) *Queue {
	return &Queue{signer: signer, queue: make(chan *request)}
}

// Issue implements Issuer. When ctx ends first, what is signed nevertheless is in the log
// and nobody has it, as when an answer is lost on its way.
func (q *Queue) Issue(ctx context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
	if len(items) >= aloneFrom {
		signed, err := q.signer.Sign(ctx, items)
		if err != nil {
			return nil, err
		}
		return signed.Take(ctx)
	}
	r := &request{items: items, done: make(chan struct{})}
	select {
	case q.queue <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-r.done:
		if r.err != nil {
			return nil, r.err
		}
		return r.signed.Take(ctx)
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

// share makes one call for a group and distributes the results.
func (q *Queue) share(ctx context.Context, group []*request) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	var all []*api.SignItem
	for _, r := range group {
		all = append(all, r.items...)
	}
	signed, err := q.signer.Sign(ctx, all)
	rest := signed.results
	for _, r := range group {
		if r.err = err; err == nil {
			n := len(r.items)
			r.signed, rest = Signed{rest[:n:n], signed.keep}, rest[n:]
		}
		close(r.done)
	}
}
