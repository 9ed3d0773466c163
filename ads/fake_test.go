package ads_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
)

// patience is a generous ceiling for what takes a few milliseconds.
const patience = 20 * time.Second

// quiet is how long nothing must happen to count as nothing.
const quiet = 60 * time.Millisecond

// one serves the same view to every node but "nobody".
type one struct{ view *ads.View }

func (o one) View(_ context.Context, n *corev3.Node) (*ads.View, error) {
	if n.GetId() == "nobody" {
		return nil, status.Error(codes.PermissionDenied, "not bound to a virtual node")
	}
	return o.view, nil
}

// world is a server with one view and a connection to it.
type world struct {
	t    *testing.T
	view *ads.View
	conn *grpc.ClientConn

	wire wire

	mu     sync.Mutex
	events []ads.Event
}

// wire is the connection of a world, which keeps what went over it in both directions.
type wire struct {
	net.Conn

	mu        sync.Mutex
	got, sent bytes.Buffer // by the client
}

func (w *wire) over(c net.Conn, err error) error {
	w.Conn = c
	return err
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.got.Write(b[:n]) // a bytes.Buffer never returns an error
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	_, _ = w.sent.Write(b) // as above
	w.mu.Unlock()
	return w.Conn.Write(b)
}

// newWorld serves a view over bufconn.
func newWorld(t *testing.T, mode ads.Mode, opts ...grpc.ServerOption) *world {
	t.Helper()
	return newWorldOf(t, mode, &ads.Server{}, opts...)
}

// newWorldOf is newWorld with a server that has settings of its own.
func newWorldOf(t *testing.T, mode ads.Mode, s *ads.Server, opts ...grpc.ServerOption) *world {
	t.Helper()
	w := &world{t: t, view: ads.NewView("v", mode)}
	g := grpc.NewServer(opts...)
	s.Views, s.Events = one{w.view}, w.record
	s.Register(g)
	l := bufconn.Listen(1 << 20)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:ads", append(ads.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := l.DialContext(ctx)
			return &w.wire, w.wire.over(c, err)
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	w.conn = conn
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		wg.Wait()
	})
	return w
}

func (w *world) record(e ads.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// count says how many events of a kind there were.
func (w *world) count(kind ads.EventKind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// publish makes the given resources the view's set.
func (w *world) publish(rs ...*ads.Resource) {
	w.t.Helper()
	s, err := ads.NewSet(rs...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.view.Publish(s)
}

// res is a resource with some content.
func res(t testing.TB, typeURL, name, content string) *ads.Resource {
	t.Helper()
	r, err := ads.NewResource(typeURL, name, wrapperspb.String(name+"="+content))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// answer is a response of either variant.
type answer struct {
	Type, Nonce, Version string
	Names, Removed       []string
	Versions             map[string]string
}

// client is a fake ADS client of either variant. Requests go out as the test
// says; nothing is acknowledged by itself.
type client struct {
	t     *testing.T
	delta discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	sotw  discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	in    chan answer
	done  chan struct{}
	err   error  // once done is closed
	body  []byte // of the last resource, once it was received
	stop  context.CancelFunc
}

func (w *world) connect(delta bool) *client {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	c := &client{t: w.t, in: make(chan answer, 4096), done: make(chan struct{}), stop: cancel}
	api := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn)
	var err error
	if delta {
		c.delta, err = api.DeltaAggregatedResources(ctx)
	} else {
		c.sotw, err = api.StreamAggregatedResources(ctx)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		for {
			a, err := c.recv()
			if err != nil {
				c.err = err
				return
			}
			c.in <- a
		}
	}()
	w.t.Cleanup(c.close)
	return c
}

func (c *client) close() {
	c.stop()
	<-c.done
}

func (c *client) recv() (answer, error) {
	a := answer{Versions: make(map[string]string)}
	if c.delta != nil {
		r, err := c.delta.Recv()
		if err != nil {
			return a, err
		}
		a.Type, a.Nonce, a.Version, a.Removed = r.GetTypeUrl(), r.GetNonce(), r.GetSystemVersionInfo(), r.GetRemovedResources()
		for _, x := range r.GetResources() {
			a.Names = append(a.Names, x.GetName())
			a.Versions[x.GetName()] = x.GetVersion()
			c.body = x.GetResource().GetValue()
		}
		return a, nil
	}
	r, err := c.sotw.Recv()
	if err != nil {
		return a, err
	}
	a.Type, a.Nonce, a.Version = r.GetTypeUrl(), r.GetNonce(), r.GetVersionInfo()
	for _, x := range r.GetResources() {
		var s wrapperspb.StringValue // field 1 of a test resource, as of a Cluster, is its name
		if err := proto.Unmarshal(x.GetValue(), &s); err != nil {
			return a, err
		}
		c.body = x.GetValue()
		name, _, _ := strings.Cut(s.GetValue(), "=")
		a.Names = append(a.Names, name)
	}
	return a, nil
}

// next is the next response.
func (c *client) next() answer {
	c.t.Helper()
	select {
	case a := <-c.in:
		return a
	case <-c.done:
		c.t.Fatalf("stream ended: %v", c.err)
	case <-time.After(patience):
		c.t.Fatal("no response")
	}
	return answer{}
}

// of is the next response, which must be of that type.
func (c *client) of(typeURL string) answer {
	c.t.Helper()
	a := c.next()
	if a.Type != typeURL {
		c.t.Fatalf("response of type %s, want %s", a.Type, typeURL)
	}
	return a
}

// silent fails if a response comes.
func (c *client) silent() {
	c.t.Helper()
	select {
	case a := <-c.in:
		c.t.Fatalf("unexpected response %+v", a)
	case <-c.done:
		c.t.Fatalf("stream ended: %v", c.err)
	case <-time.After(quiet):
	}
}

// ended waits for the stream's end and returns its code.
func (c *client) ended() codes.Code {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatal("the stream goes on")
	}
	if errors.Is(c.err, io.EOF) {
		return codes.OK
	}
	return status.Code(c.err)
}

var node = &corev3.Node{Id: "n"}

// send sends a delta request.
func (c *client) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if err := c.delta.Send(req); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
}

// subscribe asks for names in delta.
func (c *client) subscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (c *client) unsubscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesUnsubscribe: names})
}

// request asks for names in either variant, with a nonce.
func (c *client) request(typeURL, nonce string, names ...string) {
	c.t.Helper()
	if c.delta != nil {
		c.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResponseNonce: nonce, ResourceNamesSubscribe: names})
		return
	}
	c.sendSotW(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: typeURL, ResponseNonce: nonce, ResourceNames: names})
}

func (c *client) sendSotW(req *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	if err := c.sotw.Send(req); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
}

// ack acknowledges; a state-of-the-world client repeats its names.
func (c *client) ack(a answer, names ...string) {
	c.t.Helper()
	if c.delta != nil {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.Type, ResponseNonce: a.Nonce})
		return
	}
	c.sendSotW(&discoveryv3.DiscoveryRequest{TypeUrl: a.Type, ResponseNonce: a.Nonce, VersionInfo: a.Version, ResourceNames: names})
}

// nack refuses.
func (c *client) nack(a answer, message string, names ...string) {
	c.t.Helper()
	detail := &statuspb.Status{Code: int32(codes.InvalidArgument), Message: message}
	if c.delta != nil {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.Type, ResponseNonce: a.Nonce, ErrorDetail: detail})
		return
	}
	c.sendSotW(&discoveryv3.DiscoveryRequest{TypeUrl: a.Type, ResponseNonce: a.Nonce, ErrorDetail: detail, ResourceNames: names})
}

// want fails unless the response names exactly these.
func (a answer) want(t *testing.T, names, removed []string) answer {
	t.Helper()
	got := slices.Sorted(slices.Values(a.Names))
	if !slices.Equal(got, names) || !slices.Equal(a.Removed, removed) {
		t.Fatalf("response of %s has %v, removed %v; want %v, removed %v", a.Type, got, a.Removed, names, removed)
	}
	return a
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// names makes n names.
func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return out
}
