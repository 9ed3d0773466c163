package issuance

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"signet.example/api"
	"signet.example/internal/watched"
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
	// aloneOfShare is how many of these go at a time of one share.
	aloneOfShare = 4
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
// sharedCalls are under way goes together in the next. Where that is more than a call
// carries, all who ask take turns: how many agents one principal makes, and how fast they ask,
// is waited for by these agents alone. A call is over when the signer
// has answered: what else its results wait for is waited for by each who asked, beside
// the next calls. Who may have what was decided before, for each request by itself.
type Queue struct {
	signer Signer
	wake   watched.Signal // set while any wait for a shared call

	mu    sync.Mutex          // guards the following
	small turns               // that wait for a shared call
	large map[string]*batches // by whose share; of those that have any
}

// batches are those of one share, each of which goes by itself.
type batches struct {
	under   int // way
	waiting turns
}

// request is one request that waits, for a shared call or to go by itself.
type request struct {
	items  []*api.SignItem
	signed Signed
	err    error
	done   chan struct{} // closed when signed or err is there, or when it may go by itself
}

// NewQueue returns a queue before a signer. It answers while Run does.
func NewQueue(signer Signer) *Queue {
	return &Queue{signer: signer, wake: watched.NewSignal(), large: map[string]*batches{}}
}

// Issue implements Batches. When ctx ends first, what is signed nevertheless is in the log
// and nobody has it, as when an answer is lost on its way.
func (q *Queue) Issue(ctx context.Context, whose Share, items []*api.SignItem) ([]*api.SignResult, error) {
	if len(items) >= aloneFrom {
		return q.alone(ctx, whose, items)
	}
	r := &request{items: items, done: make(chan struct{})}
	q.mu.Lock()
	q.small.push(r, whose.path()...)
	q.mu.Unlock()
	q.wake.Wake()
	select {
	case <-r.done:
		if r.err != nil {
			return nil, r.err
		}
		return r.signed.Take(ctx)
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		q.small.remove(r, whose.path()...)
		return nil, ctx.Err()
	}
}

// alone has a batch go by itself, when fewer than aloneOfShare of its share do.
func (q *Queue) alone(ctx context.Context, whose Share, items []*api.SignItem) ([]*api.SignResult, error) {
	if err := q.begin(ctx, whose); err != nil {
		return nil, err
	}
	signed, err := func() (Signed, error) {
		defer q.end(whose.path()[0])
		return q.signer.Sign(ctx, items)
	}()
	if err != nil {
		return nil, err
	}
	return signed.Take(ctx)
}

func (q *Queue) begin(ctx context.Context, whose Share) error {
	share, r := whose.path()[0], &request{done: make(chan struct{})}
	q.mu.Lock()
	b := q.large[share]
	if b == nil {
		b = &batches{}
		q.large[share] = b
	}
	if b.under < aloneOfShare {
		b.under++
		q.mu.Unlock()
		return nil
	}
	b.waiting.push(r, whose.Agent)
	q.mu.Unlock()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	waits := b.waiting.remove(r, whose.Agent)
	q.mu.Unlock()
	if !waits { // its turn came meanwhile
		q.end(share)
	}
	return ctx.Err()
}

// end has the next of a share begin.
func (q *Queue) end(share string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.large[share]
	if next := b.waiting.pop(); next != nil {
		close(next.done)
		return
	}
	if b.under--; b.under == 0 {
		delete(q.large, share)
	}
}

// Run serves the queue until ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	var g errgroup.Group
	for range sharedCalls {
		g.Go(func() error {
			for {
				select {
				case <-q.wake:
					if group := q.gather(); len(group) > 0 { // else whoever it was of has left
						q.share(ctx, group)
					}
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return g.Wait()
}

// gather takes what one call carries, in turns.
func (q *Queue) gather() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	var group []*request
	for n := 0; n < callSize; {
		r := q.small.pop()
		if r == nil {
			break
		}
		group = append(group, r)
		n += len(r.items)
	}
	if !q.small.empty() {
		q.wake.Wake()
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
