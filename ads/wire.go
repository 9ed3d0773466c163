package ads

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Field numbers of envoy/service/discovery/v3/discovery.proto. Responses are
// assembled from shared pieces, so that a push to a thousand streams encodes
// each resource once; only the nonce is a stream's own.
const (
	fieldVersion   protowire.Number = 1 // (Delta)DiscoveryResponse: system_version_info, version_info
	fieldResources protowire.Number = 2
	fieldTypeURL   protowire.Number = 4
	fieldNonce     protowire.Number = 5
	fieldRemoved   protowire.Number = 6 // DeltaDiscoveryResponse only

	fieldResourceVersion protowire.Number = 1 // discovery.v3.Resource
	fieldResourceAny     protowire.Number = 2
	fieldResourceName    protowire.Number = 3

	fieldAnyTypeURL protowire.Number = 1 // google.protobuf.Any
	fieldAnyValue   protowire.Number = 2
)

// framing returns what precedes the resource's Body on the wire, made at the first use. Two
// streams may race to make it; both make the same.
func (r *Resource) framing(delta bool) []byte {
	made := &r.sotw
	if delta {
		made = &r.delta
	}
	if h := made.Load(); h != nil {
		return *h
	}
	h := r.head(delta)
	made.CompareAndSwap(nil, &h)
	return *made.Load()
}

func (r *Resource) head(delta bool) []byte {
	inside := appendString(nil, fieldAnyTypeURL, r.Type)
	inside = appendLen(inside, fieldAnyValue, len(r.Body))
	if delta {
		inResource := appendString(nil, fieldResourceVersion, r.Version)
		inResource = appendString(inResource, fieldResourceName, r.Name)
		inResource = appendLen(inResource, fieldResourceAny, len(inside)+len(r.Body))
		inside = append(inResource, inside...)
	}
	return append(appendLen(nil, fieldResources, len(inside)+len(r.Body)), inside...)
}

// size is the resource's share of a response, give or take its head.
func (r *Resource) size() int { return len(r.Body) + len(r.Name) + len(r.Type) + 64 }

// frame is one encoded response. With ServerOptions it goes to the transport
// as it is; under gRPC's own codec it poses as a protobuf message and is copied.
type frame struct {
	buf   mem.BufferSlice
	delta bool
	all   *joined // what buf has of, if it is that
	msg   protoreflect.Message
}

// newFrame encodes a response of resources of a set, which are all of one type, and of
// names that were removed, of which a state-of-the-world response has none.
func newFrame(s *Set, typeURL, nonce string, rs []*Resource, removed []string, delta bool) *frame {
	f := &frame{delta: delta}
	if len(rs) >= manyPieces && same(rs, s.Type(typeURL)) {
		f.all = s.joined(typeURL, delta)
		f.add(f.all.bytes)
	} else {
		f.buf = make(mem.BufferSlice, 0, 2*len(rs)+1)
		for _, r := range rs {
			f.add(r.framing(delta), r.Body)
		}
	}
	f.add(trailer(typeURL, s.TypeVersion(typeURL), nonce, removed))
	return f
}

// trailer is the part of a response that is the stream's own. protobuf lets
// fields come in any order, so it stands after the shared part.
func trailer(typeURL, version, nonce string, removed []string) []byte {
	b := make([]byte, 0, len(typeURL)+len(version)+len(nonce)+16)
	b = appendString(b, fieldVersion, version)
	b = appendString(b, fieldTypeURL, typeURL)
	b = appendString(b, fieldNonce, nonce)
	for _, n := range removed {
		b = appendString(b, fieldRemoved, n)
	}
	return b
}

func (f *frame) add(pieces ...[]byte) {
	for _, p := range pieces {
		if len(p) > 0 {
			f.buf = append(f.buf, mem.SliceBuffer(p))
		}
	}
}

// ProtoReflect makes frame a proto.Message whose fields are all still encoded.
func (f *frame) ProtoReflect() protoreflect.Message {
	if f.msg == nil {
		if f.delta {
			f.msg = new(discoveryv3.DeltaDiscoveryResponse).ProtoReflect()
		} else {
			f.msg = new(discoveryv3.DiscoveryResponse).ProtoReflect()
		}
		f.msg.SetUnknown(f.buf.Materialize())
	}
	return f.msg
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

// appendLen appends the tag and length of a field whose bytes follow.
func appendLen(b []byte, n protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(size)) //nolint:gosec // a length
}

// maxRequest bounds what one request of a client may cost: 10,000 names of 100 bytes.
const maxRequest = 1 << 20

// readBuffer is of each connection.
const readBuffer = 8 << 10

// What may be sent before any of it is read, on one stream and on a connection: to a server,
// and to a Client. Because these are fixed, gRPC does not measure how fast the other end is.
// For that it would ping after each message, so that a push to a thousand streams, and the
// thousand acknowledgements, would each come with as many pings and answers to them.
const (
	serverStreamWindow, serverConnWindow = 128 << 10, 256 << 10
	clientStreamWindow, clientConnWindow = 1 << 20, 4 << 20
)

// ServerOptions are the options of a grpc.Server that serves ADS well:
// responses reach the transport without being copied, requests are bounded, and a
// push is written and read no more often than it must be. Every other service on that server goes on as before, with requests
// of up to 1 MiB. Whatever else there is to encode and decode is codec's; nil is
// gRPC's own.
func ServerOptions(codec encoding.CodecV2) []grpc.ServerOption {
	if codec == nil {
		codec = encoding.GetCodecV2(proto.Name)
	}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(frameCodec{codec}),
		grpc.MaxRecvMsgSize(maxRequest),
		// Streams are idle most of their time, and what clients say is short.
		grpc.ReadBufferSize(readBuffer),
		grpc.StaticStreamWindowSize(serverStreamWindow),
		grpc.StaticConnWindowSize(serverConnWindow),
	}
}

// DialOptions are the options of a connection that Clients use. Like Envoy, such a connection
// does not ping its server because of what it receives.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(clientStreamWindow),
		grpc.WithStaticConnWindowSize(clientConnWindow),
	}
}

// frameCodec is a codec with a short cut for frames.
type frameCodec struct{ encoding.CodecV2 }

// Marshal hands a frame's pieces over; they are never written to, nor freed.
func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return f.buf, nil
	}
	return c.CodecV2.Marshal(v)
}
