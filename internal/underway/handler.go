package underway

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"signet.example/internal/decode"
)

// Handler is told by a gRPC server what its handlers take.
func (r *Room) Handler() stats.Handler { return handler{r} }

// Options are those of a gRPC server whose connections enter the Room: it is told of
// what its handlers take, and what messages become is weighed, and counted while it is held.
func (r *Room) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.StatsHandler(r.Handler()), grpc.ForceServerCodecV2(r.Codec())}
}

// Codec is that of Options, where a server has one of its own around it.
func (r *Room) Codec() *decode.Codec {
	return decode.New(func(message any, bytes int) { r.made.Store(message, bytes) })
}

// weight is what a message takes that has so many bytes on the wire.
func (r *Room) weight(message any, wire int) int {
	made, ok := r.made.LoadAndDelete(message)
	if !ok {
		return wire // of another codec
	}
	return max(wire, made.(int)) //nolint:forcetypeassert // what it holds
}

type handler struct{ room *Room }

// call is one call. What it keeps is counted until it ends; of the messages of a
// stream until its handler has read them: what it keeps of them is its own to bound.
type call struct {
	conn     *Conn
	stream   bool
	endless  bool // neither side has one message
	keeps    int
	messages int
	one      any // the message of a stream of answers
	// Whoever sends need not be whoever ends it.
	answers, last atomic.Int64 // bytes of all messages that it was answered, and of the last
}

type callKey struct{}

// TagRPC implements stats.Handler.
func (handler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	c := Of(ctx)
	if c == nil {
		return ctx
	}
	return context.WithValue(ctx, callKey{}, &call{conn: c})
}

// HandleRPC implements stats.Handler.
func (h handler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	weight := 0
	if s, ok := s.(*stats.InPayload); ok {
		weight = h.room.weight(s.Payload, s.WireLength) + perPiece
	}
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.InHeader:
		c.keeps = perCall + sizeOf(s.Header)
	case *stats.Begin: // whose end is told; a method that there is not begins never
		c.stream, c.endless = s.IsClientStream, s.IsClientStream || s.IsServerStream
		c.begin()
	case *stats.InPayload:
		switch n := s.WireLength + perPiece; {
		case c.stream:
			c.conn.add(-n)
		case c.endless: // it has one, for as long as it lasts
			c.conn.add(-n)
			c.conn.keep(weight)
			c.keeps += weight
			c.one = s.Payload
		default:
			c.conn.add(weight - n)
			c.messages += weight
		}
	case *stats.OutPayload:
		c.answers.Add(int64(s.WireLength))
		c.last.Store(int64(s.WireLength))
		c.conn.answer(s.WireLength)
	case *stats.End:
		h.room.made.Delete(c.one) // gRPC looks for another, and decodes it if there is one
		c.end()
	}
}

func sizeOf(md metadata.MD) int {
	n := 0
	for k, vs := range md {
		n += perHeader
		for _, v := range vs {
			n += len(k) + len(v)
		}
	}
	return n
}

func (c *call) begin() {
	r := c.conn.room
	c.conn.going.Add(1)
	r.mu.Lock()
	c.conn.calls++
	r.mu.Unlock()
	if c.endless {
		c.conn.free.Add(freeStream)
	}
	c.conn.keep(c.keeps)
}

// end gives back what the call holds.
func (c *call) end() {
	if c.endless {
		c.conn.free.Add(-freeStream)
	}
	c.conn.keep(-c.keeps)
	c.conn.going.Add(-1) // before its answers: they are given back where nothing ended waits
	if n := min(c.answers.Load(), c.last.Load()+writeQuota); n > 0 && c.conn.ended.Add(n) >= step {
		c.conn.weighNow()
	}
	r := c.conn.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(c.conn, c.messages)
	c.conn.calls--
	r.settle(c.conn)
}

// TagConn implements stats.Handler.
func (handler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (handler) HandleConn(context.Context, stats.ConnStats) {}
