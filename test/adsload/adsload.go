// Package adsload is a fake ADS client for any number of proxies: each has a delta stream of
// its own, asks for everything of the types that it is told, acknowledges what comes, and
// comes back when its stream ends. It says what came and when, and keeps nothing of it.
// test/bench measures servers with it, and the command in run does so from a shell.
package adsload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// Types of what an Envoy has, in the order in which it asks.
var Types = []string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}

// Load is what is asked for.
type Load struct {
	// Streams is how many proxies there are.
	Streams int
	// Conn is the connection that a stream goes over; several may have one. Those of agents
	// are made with ads.DialOptions.
	Conn func(stream int) (grpc.ClientConnInterface, error)
	// Node is who the proxy of a stream is.
	Node func(stream int) *corev3.Node
	// Types are asked for one after the other, each when the one before was answered. An answer
	// of the last one counts. Nil: those of an Envoy.
	Types []string
	// AtOnce asks for all types at once, as agents do: a type of which there is nothing is not answered.
	AtOnce bool
}

// mostPause bounds how long a stream that ended waits before it comes back.
const mostPause = time.Second

// Run is a Load that is under way.
type Run struct {
	load   Load
	got    chan struct{}
	cancel context.CancelFunc
	all    sync.WaitGroup
	failed atomic.Pointer[error]
	ended  atomic.Int64
	whole  atomic.Int64 // streams that have everything
}

// Start opens all streams.
func (l Load) Start(ctx context.Context) *Run {
	if l.Types == nil {
		l.Types = Types
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Run{load: l, got: make(chan struct{}, l.Streams), cancel: cancel}
	for i := range l.Streams {
		r.all.Go(func() { r.follow(ctx, i) })
	}
	return r
}

// Await waits until so many answers have come that were not waited for yet.
func (r *Run) Await(ctx context.Context, answers int) error {
	for n := range answers {
		select {
		case <-r.got:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d answers came; %d times a stream ended, the last one by: %w", n, answers, r.ended.Load(), r.lastError())
		}
	}
	return nil
}

// AwaitAll waits until every stream that there is has had everything.
func (r *Run) AwaitAll(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for int(r.whole.Load()) < r.load.Streams {
		select {
		case <-r.got: // by others than Await
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d streams have everything; %d times a stream ended, the last one by: %w", r.whole.Load(), r.load.Streams, r.ended.Load(), r.lastError())
		}
	}
	return nil
}

func (r *Run) lastError() error {
	if err := r.failed.Load(); err != nil {
		return *err
	}
	return context.DeadlineExceeded
}

// Whole is how many streams have everything now.
func (r *Run) Whole() int { return int(r.whole.Load()) }

// Ended is how often a stream has ended.
func (r *Run) Ended() int64 { return r.ended.Load() }

// Stop ends all streams.
func (r *Run) Stop() {
	r.cancel()
	r.all.Wait()
}

// follow is one proxy.
func (r *Run) follow(ctx context.Context, stream int) {
	for ctx.Err() == nil {
		if err := r.once(ctx, stream); ctx.Err() == nil {
			r.ended.Add(1)
			r.failed.Store(&err)
		}
		select {
		case <-time.After(rand.N(mostPause)):
		case <-ctx.Done():
		}
	}
}

// once is one stream.
func (r *Run) once(ctx context.Context, n int) error {
	conn, err := r.load.Conn(n)
	if err != nil {
		return err
	}
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		return err
	}
	next := r.load.Types
	ask := func(node *corev3.Node) {
		_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: next[0], ResourceNamesSubscribe: []string{"*"}}) // Recv tells
		next = next[1:]
	}
	for ask(r.load.Node(n)); r.load.AtOnce && len(next) > 0; {
		ask(nil)
	}
	last, whole := r.load.Types[len(r.load.Types)-1], false
	defer func() {
		if whole {
			r.whole.Add(-1)
		}
	}()
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}) // as above
		if resp.GetTypeUrl() == last {
			if !whole {
				whole = true
				r.whole.Add(1)
			}
			select {
			case r.got <- struct{}{}:
			case <-ctx.Done():
			}
		}
		if len(next) > 0 {
			ask(nil)
		}
	}
}
