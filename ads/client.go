package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// maxAnswer bounds one response that a Client takes.
const maxAnswer = 64 << 20

// maxAnswers is how many answers may wait to be sent, more than a server of
// ours leaves open.
const maxAnswers = 1024

// deltaClient is the client's end of a delta stream.
type deltaClient = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// Client follows a Relay view over delta ADS and hands on complete sets only.
// Versions are carried through as the server named them: one that is made anew
// would lose a salt (R2). Its fields must not be changed while Run
// runs, and Have and the callbacks are used from Run's goroutine only.
type Client struct {
	// Conn is the connection to the server, which should have been made with DialOptions.
	Conn grpc.ClientConnInterface
	// Node identifies the view.
	Node *corev3.Node
	// Types are subscribed with a wildcard, in this order; ViewType is always added, last.
	Types []string
	// Have is the last complete set, the view's own resource included; Run
	// resumes from it and keeps it current.
	Have *Set
	// Complete reports whether got, which is without the view's own resource, is
	// what view describes; nil accepts every boundary.
	Complete func(view *Resource, got *Set) bool
	// OnSet is called with each complete set (without the view's own resource) and its view.
	OnSet func(*Set, *Resource)
	// Log receives what was odd about the server's answers; nil discards it.
	Log *slog.Logger
	// Pool, if set, is shared by clients whose views overlap.
	Pool *Pool
}

// Run follows the server until the stream breaks or ctx ends; call it again to
// resume from the last complete set. What came after that is asked for again.
func (c *Client) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx) // its end ends the stream
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.Conn).
		DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return errors.Join(fmt.Errorf("open xds stream: %w", err), group.Wait())
	}
	types := slices.DeleteFunc(slices.Clone(c.Types), func(t string) bool { return t == ViewType })
	types = append(types, ViewType)
	out := make(chan *discoveryv3.DeltaDiscoveryRequest, maxAnswers)
	requests := c.subscriptions(types)
	group.Go(func() error { return send(ctx, stream, requests, out) })
	group.Go(func() error { return c.receive(ctx, stream, c.begin(types), out) })
	return group.Wait()
}

// subscriptions are the first requests of a stream.
func (c *Client) subscriptions(types []string) []*discoveryv3.DeltaDiscoveryRequest {
	reqs := make([]*discoveryv3.DeltaDiscoveryRequest, len(types))
	for i, t := range types {
		reqs[i] = &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: []string{wildcard}, InitialResourceVersions: c.versions(t)}
	}
	reqs[0].Node = c.Node
	return reqs
}

// send is the only sender. It is apart from the receiver, as a server may
// answer the first subscription at length before it reads the next.
func send(ctx context.Context, stream deltaClient, first []*discoveryv3.DeltaDiscoveryRequest, out <-chan *discoveryv3.DeltaDiscoveryRequest) error {
	for _, req := range first {
		if stream.Send(req) != nil {
			return nil // the receiver learns why
		}
	}
	for {
		select {
		case req := <-out:
			if stream.Send(req) != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// receive applies responses and queues the answers.
func (c *Client) receive(ctx context.Context, stream deltaClient, got partial, out chan<- *discoveryv3.DeltaDiscoveryRequest) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("xds stream: %w", err)
		}
		select {
		case out <- c.take(ctx, got, resp):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// versions is what the client has of a type.
func (c *Client) versions(typeURL string) map[string]string {
	rs := c.Have.Type(typeURL)
	m := make(map[string]string, len(rs))
	for _, r := range rs {
		m[r.Name] = r.Version
	}
	return m
}

// partial is what arrived, by type and name.
type partial map[string]map[string]*Resource

// begin starts from the last complete set.
func (c *Client) begin(types []string) partial {
	p := make(partial, len(types))
	for _, t := range types {
		p[t] = make(map[string]*Resource)
		for _, r := range c.Have.Type(t) {
			p[t][r.Name] = r
		}
	}
	return p
}

// set is the partial state as a set.
func (p partial) set() (*Set, error) {
	var rs []*Resource
	for _, byName := range p {
		rs = slices.AppendSeq(rs, maps.Values(byName))
	}
	return NewSet(rs...)
}

// take applies a response and returns the answer to it.
func (c *Client) take(ctx context.Context, got partial, resp *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	err := c.apply(got, resp)
	if err == nil && resp.GetTypeUrl() == ViewType {
		err = c.complete(got)
	}
	if err != nil {
		c.log().WarnContext(ctx, "xds response refused", slog.String("type", resp.GetTypeUrl()), slog.Any("err", err))
		answer.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
	}
	return answer
}

// apply takes a response into the partial state, wholly or not at all.
func (c *Client) apply(got partial, resp *discoveryv3.DeltaDiscoveryResponse) error {
	t := resp.GetTypeUrl()
	byName := got[t]
	if byName == nil {
		return fmt.Errorf("type %q was not asked for", t)
	}
	rs := make([]*Resource, 0, len(resp.GetResources()))
	for _, r := range resp.GetResources() {
		if r.GetName() == "" || r.GetVersion() == "" || r.GetResource().GetTypeUrl() != t {
			return fmt.Errorf("resource %q of type %q has no version or another type", r.GetName(), t)
		}
		rs = append(rs, c.Pool.intern(&Resource{Type: t, Name: r.GetName(), Version: r.GetVersion(), Body: r.GetResource().GetValue()}))
	}
	for _, r := range rs {
		byName[r.Name] = r
	}
	for _, n := range resp.GetRemovedResources() {
		delete(byName, n)
	}
	return nil
}

// complete is called at each boundary: if all that the view describes is
// there, it becomes what the client has.
func (c *Client) complete(got partial) error {
	views := got[ViewType]
	if len(views) == 0 {
		return nil // the view went away; what is there stays
	}
	if len(views) > 1 {
		return errors.New("more than one view on a stream")
	}
	all, err := got.set()
	if err != nil {
		return err
	}
	view, set := all.Type(ViewType)[0], all.Without(ViewType)
	if c.Complete != nil && !c.Complete(view, set) {
		return fmt.Errorf("the set is not the one that view %q describes", view.Name)
	}
	c.Have = all
	if c.OnSet != nil {
		c.OnSet(set, view)
	}
	return nil
}

func (c *Client) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}
