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
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// maxAnswer bounds one response that a Client takes.
const maxAnswer = 64 << 20

// Client follows a Relay view over delta ADS and hands on complete sets only.
// Versions are carried through as the server named them: one that is made anew
// would lose a salt (XDS.md 5.2). Its fields are not to be changed while Run
// runs, and Have and the callbacks are used from Run's goroutine only.
type Client struct {
	// Conn is the connection to the server.
	Conn grpc.ClientConnInterface
	// Node identifies the view.
	Node *corev3.Node
	// Types are subscribed with a wildcard, in this order; ViewType is always added, last.
	Types []string
	// Have is the last complete set, the view's own resource included; Run
	// resumes from it and keeps it current.
	Have *Set
	// Complete says whether got, which is without the view's own resource, is
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.Conn).
		DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return fmt.Errorf("open xds stream: %w", err)
	}
	types := slices.DeleteFunc(slices.Clone(c.Types), func(t string) bool { return t == ViewType })
	types = append(types, ViewType)
	for i, t := range types {
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: []string{wildcard}, InitialResourceVersions: c.versions(t)}
		if i == 0 {
			req.Node = c.Node
		}
		if err := stream.Send(req); err != nil {
			return broken(stream, err)
		}
	}
	got := c.begin(types)
	for {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("xds stream: %w", err)
		}
		if err := stream.Send(c.take(ctx, got, resp)); err != nil {
			return broken(stream, err)
		}
	}
}

// broken finds the status of a stream that refuses to send.
func broken(stream grpc.ClientStream, err error) error {
	if recv := stream.RecvMsg(new(discoveryv3.DeltaDiscoveryResponse)); recv != nil {
		err = recv
	}
	return fmt.Errorf("xds stream: %w", err)
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
		c.log().WarnContext(ctx, "xds response refused", "type", resp.GetTypeUrl(), "err", err)
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
