package decode

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// times and free bound what the objects of a message take, in bytes: free, and so
	// many times what it has on the wire. What is meant takes two to eight times of it.
	times = 12
	free  = 64 << 10
	// large messages are decoded few at a time: what they take is counted as theirs once
	// they are there.
	large, fewLarge = 256 << 10, 4
)

// Codec is gRPC's own for protobuf, bounded.
type Codec struct {
	encoding.CodecV2
	note func(message any, bytes int)
	gate chan struct{}
}

// New returns a Codec that tells note, which may be nil, how many bytes the objects of
// each message take at most, once they are made.
func New(note func(message any, bytes int)) *Codec {
	return &Codec{encoding.GetCodecV2(proto.Name), note, make(chan struct{}, fewLarge)}
}

// Handshake is how long a connection may take until it speaks HTTP/2, TLS included, where a
// server has no bound of its own; gRPC's is 120 s.
const Handshake = 10 * time.Second

// NewServer is grpc.NewServer with a Codec, and with Handshake. An option may bring another
// of either; a codec must be made of a Codec as well.
func NewServer(options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{grpc.ForceServerCodecV2(New(nil)), grpc.ConnectionTimeout(Handshake)}, options...)...)
}

// Unmarshal implements encoding.CodecV2.
func (c *Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(protoreflect.ProtoMessage)
	if !ok {
		return fmt.Errorf("internal error: %T is not a protobuf message", v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	bytes, err := Weigh(whole.ReadOnlyData(), m)
	if err != nil {
		return err
	}
	if bytes > large {
		c.gate <- struct{}{}
		defer func() { <-c.gate }()
	}
	if err := c.CodecV2.Unmarshal(mem.BufferSlice{whole}, v); err != nil {
		return err
	}
	if c.note != nil {
		c.note(v, bytes)
	}
	return nil
}
