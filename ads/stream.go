package ads

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// burst is how many queued requests are taken before the next push: a client
// that changes its mind quickly gets one answer (XDS-08).
const burst = 64

// request is one request of either variant, or why there are no more.
type request struct {
	delta *discoveryv3.DeltaDiscoveryRequest
	sotw  *discoveryv3.DiscoveryRequest
	err   error
}

// node returns the node the client sent, if it did.
func (r request) node() *corev3.Node {
	if r.delta != nil {
		return r.delta.GetNode()
	}
	return r.sotw.GetNode()
}

// size is the request's encoded size.
func (r request) size() int {
	if r.delta != nil {
		return proto.Size(r.delta)
	}
	return proto.Size(r.sotw)
}

// stream joins one machine with its transport and its view.
type stream struct {
	server *Server
	grpc   grpc.ServerStream
	view   *View
	id     string
	node   string        // id of the first request's node; never changes (XDS-04)
	woken  chan struct{} // capacity 1: there is something to look at

	// Owned by view, under its lock.
	settled uint64
	// confirmed is the generation of which the client has acknowledged listeners and routes
	// itself, and when it did. Guarded by View.mu.
	confirmed   uint64
	confirmedAt time.Time
	waiting     bool
	// answered is the generation of which the client has answered all, mute that it did not in
	// time when it was to answer first. Guarded by View.mu.
	answered   uint64
	answeredAt time.Time
	mute       bool
	// tries is what this stream has before the others; nil: it has what all have.
	tries atomic.Pointer[state]

	peer  string // whose it is, for what it names
	named int    // bytes that it is counted with; of the stream's goroutine

	mu      sync.Mutex // machine, for View.Acked
	machine machine
}

// serve runs one stream. Its goroutine is the only one that sends.
func (s *Server) serve(g grpc.ServerStream, delta bool, recv func() request) error {
	in := receive(g.Context(), recv)
	first, err := in.next(g.Context())
	if err != nil {
		return over(err)
	}
	if first.node() == nil {
		return status.Error(codes.InvalidArgument, "the first request of a stream must carry its node")
	}
	view, err := s.Views.View(g.Context(), first.node())
	if err != nil {
		return err
	}
	st := s.stream(g, delta, view, first.node())
	defer func() { s.names.count(st.peer, -st.named) }()
	err = over(st.follow(g.Context(), in, first))
	closed := Event{Kind: Closed, Stream: st.id}
	if err != nil {
		closed.Message = clean(err.Error())
		s.log().WarnContext(g.Context(), "xds stream ended", slog.String("view", view.name), slog.String("stream", st.id), slog.Any("err", err))
	}
	s.emit(view.name, closed)
	return err
}

// stream begins one. It is not made in serve, which stays on the stack for as long as the stream
// lasts: what is made there on the way to the heap would stay with it.
func (s *Server) stream(g grpc.ServerStream, delta bool, view *View, node *corev3.Node) *stream {
	st := &stream{server: s, grpc: g, view: view, node: node.GetId(), id: streamID(), woken: make(chan struct{}, 1)}
	st.machine = machine{mode: view.mode, delta: delta, id: st.id, client: clientOf(node), drain: s.Drain, linger: s.Linger}
	if s.Peer != nil {
		st.peer = s.Peer(g.Context())
	}
	return st
}

// follow is run as one of the view's streams: who is told of its end finds it gone.
func (s *stream) follow(ctx context.Context, in inbox, first request) error {
	s.view.join(s)
	defer s.view.leave(s)
	s.server.emit(s.view.name, Event{Kind: Opened, Stream: s.id})
	return s.run(ctx, in, first)
}

// over turns the ways in which clients go away into an orderly end.
func over(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

// run takes requests, wake-ups and deadlines, and steps after each.
func (s *stream) run(ctx context.Context, in inbox, first request) error {
	if err := s.take(first); err != nil {
		return err
	}
	var alarm alarm
	defer alarm.stop()
	for {
		if err := s.drain(in); err != nil {
			return err
		}
		deadline, err := s.push()
		if err != nil {
			return err
		}
		alarm.set(deadline)
		select {
		case req := <-in:
			err = s.take(req)
		case <-s.woken:
		case <-alarm.c:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// alarm is a timer that is made when there is first something to wait for: most streams
// never have.
type alarm struct {
	timer *time.Timer
	c     <-chan time.Time // nil while there is nothing to wait for
}

// set has it go off at t, the zero time for never.
func (a *alarm) set(t time.Time) {
	a.stop()
	if t.IsZero() {
		return
	}
	if a.timer == nil {
		a.timer = time.NewTimer(time.Until(t))
	} else {
		a.timer.Reset(time.Until(t))
	}
	a.c = a.timer.C
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
		a.c = nil
	}
}

// drain takes the requests that are there already.
func (s *stream) drain(in inbox) error {
	for range burst {
		select {
		case req := <-in:
			if err := s.take(req); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// take applies one request.
func (s *stream) take(req request) error {
	if req.err != nil {
		return req.err
	}
	if n := req.size(); n > maxRequest {
		return status.Errorf(codes.ResourceExhausted, "a request of %d bytes: at most %d are served", n, maxRequest)
	}
	if n := req.node(); n != nil && n.GetId() != s.node {
		return status.Error(codes.InvalidArgument, "the node id changed within the stream")
	}
	s.mu.Lock()
	var rejs []Rejection
	var err error
	if st := s.current(); req.delta != nil {
		rejs, err = s.machine.deltaRequest(req.delta, st)
	} else {
		rejs, err = s.machine.sotwRequest(req.sotw, st)
	}
	s.mu.Unlock()
	if len(rejs) > 0 {
		s.view.reject(rejs)
	}
	if err != nil {
		return err
	}
	return s.name(req)
}

// name counts what the stream holds of what its client named. What is added to the
// count may have been there: the names are gone through once they seem too many.
func (s *stream) name(req request) error {
	s.named += s.server.names.count(s.peer, growth(req))
	if s.named <= maxNamed && s.server.names.of(s.peer) <= maxPeerNamed {
		return nil
	}
	s.mu.Lock()
	exact := s.machine.named()
	s.mu.Unlock()
	s.named += s.server.names.count(s.peer, exact-s.named)
	if all := s.server.names.of(s.peer); s.named > maxNamed || all > maxPeerNamed {
		return status.Errorf(codes.ResourceExhausted, "the names of this stream have %d bytes, those of all streams of its client %d: at most %d and %d are served", s.named, all, maxNamed, maxPeerNamed)
	}
	return nil
}

// growth is at most how much more a stream holds after a request.
func growth(r request) int {
	n := 0
	for _, name := range r.delta.GetResourceNamesSubscribe() {
		n += 2 * (len(name) + perName) // its name, and that it was asked for
	}
	for name, version := range r.delta.GetInitialResourceVersions() {
		n += len(name) + len(version) + 2*perName
	}
	for _, name := range r.sotw.GetResourceNames() {
		n += len(name) + perName
	}
	return n
}

// push sends all that is due and returns when to look again. While it sends,
// later publications coalesce into the next push.
func (s *stream) push() (deadline time.Time, err error) {
	cleared := s.view.clear()
	s.mu.Lock()
	st := s.current()
	out := s.machine.step(st, cleared, time.Now())
	s.mu.Unlock()
	for _, n := range out.notes {
		s.server.emit(s.view.name, n.event, n.about...)
	}
	for _, f := range out.frames {
		if err := s.grpc.SendMsg(f); err != nil {
			return time.Time{}, err
		}
	}
	s.view.settle(s, out.settled, out.waiting, cleared)
	if out.answered && s.view.answer(s, st.gen) {
		s.view.passed(s, st.gen)
		s.server.emit(s.view.name, Event{Kind: Answered, Stream: s.id})
	}
	return out.deadline, nil
}

// wake makes the stream look again; one look sees all that happened before it.
func (s *stream) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// acked reports which version of a resource the client acknowledged, and whether it is subscribed.
func (s *stream) acked(typeURL, name string) (version string, subscribed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.machine.find(typeURL)
	if t == nil || !t.has(name) {
		return "", false
	}
	if r := find(t.acked, name); r != nil {
		version = r.Version
	}
	return version, true
}

// holding lists what the client has acknowledged of a type. Nobody changes it.
func (s *stream) holding(typeURL string) []*Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.machine.find(typeURL); t != nil {
		return t.acked
	}
	return nil
}

// inbox is what the receiving goroutine hands to the stream's. All comes by one channel: each
// that an idle stream waits for takes memory of its own.
type inbox chan request

// receive starts the one other goroutine of a stream. It ends with the
// stream's context, which gRPC ends when the handler returns.
func receive(ctx context.Context, recv func() request) inbox {
	in := make(inbox)
	go func() {
		for {
			req := recv()
			select {
			case in <- req:
			case <-ctx.Done():
				return
			}
			if req.err != nil {
				return
			}
		}
	}()
	return in
}

// next waits for a request.
func (in inbox) next(ctx context.Context) (request, error) {
	select {
	case req := <-in:
		return req, req.err
	case <-ctx.Done():
		return request{}, ctx.Err()
	}
}

// clientOf is what a client says that it is: its name and version.
func clientOf(n *corev3.Node) string {
	s := n.GetUserAgentName() + " " + n.GetUserAgentVersion()
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		s = fmt.Sprintf("%s %d.%d.%d", n.GetUserAgentName(), v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	return clean(s)
}

// streamID is random, so that a nonce of a stream of this server before it was
// restarted means nothing.
func streamID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never returns an error
	return hex.EncodeToString(b[:])
}
