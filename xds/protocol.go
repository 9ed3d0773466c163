package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
)

// What a listener's protocol decides: what is spoken to it and behind it, and what may
// become of a connection. Into a proxy leads the same HTTP manager for all but tcp, which
// takes HTTP/1 and HTTP/2, and asks; for tcp see tcp.go.

// multiplexed protocols are HTTP/2 and what is on top of it.
func multiplexed(protocol string) bool {
	return protocol == mesh.ProtocolHTTP2 || protocol == mesh.ProtocolGRPC
}

// The names of the two versions of HTTP in a TLS handshake (RFC 7301).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// alpn is what a client offers; nothing where bytes are bytes.
func alpn(protocol string) []string {
	switch {
	case protocol == mesh.ProtocolTCP:
		return nil
	case multiplexed(protocol):
		return []string{alpnHTTP2}
	}
	return []string{alpnHTTP1}
}

// served is what a listener takes of what clients offer.
func served(protocol string) []string {
	if protocol == mesh.ProtocolTCP {
		return nil
	}
	return []string{alpnHTTP2, alpnHTTP1}
}

// httpOptions is the key of a cluster's HTTP settings.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func (b *builder) options(p part) map[string]*anypb.Any {
	return map[string]*anypb.Any{httpOptions: b.part(p)}
}

// speaking are the options of a cluster of a protocol, which has none where it is not HTTP.
func (b *builder) speaking(s speaking) map[string]*anypb.Any {
	if s.protocol == mesh.ProtocolTCP {
		return nil
	}
	return b.options(s)
}

// speaking is how a cluster is spoken to.
type speaking struct {
	protocol  string
	egress    bool // it is another proxy's, or a stranger's, and connections to it end
	life      lifetimes
	strangers bool
}

func (s speaking) message(b *builder) proto.Message {
	o := &httpv3.HttpProtocolOptions{}
	if s.egress {
		o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
			IdleTimeout:                 duration(s.life.upstreamIdle),
			MaxConnectionDuration:       duration(s.life.upstream),
			MaxConnectionDurationJitter: &typev3.Percent{Value: 10},
		}
	}
	if s.strangers {
		o.HttpFilters = b.strangersFilters()
	}
	if multiplexed(s.protocol) {
		o.UpstreamProtocolOptions = http2(upstreamHTTP2())
	} else {
		o.UpstreamProtocolOptions = http1()
	}
	return o
}

// asking is how the agent's sockets are spoken to: so many calls are under way on a connection.
type asking struct{ streams uint32 }

func (a asking) message(*builder) proto.Message {
	return &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: http2(&corev3.Http2ProtocolOptions{MaxConcurrentStreams: wrapperspb.UInt32(a.streams)}),
	}
}

// upstreamHTTP2 bounds what a server may have a proxy hold. It may not begin a stream.
func upstreamHTTP2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(maxUpstreamStreams),
		InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
	}
}

// maxUpstreamStreams is how many requests share a connection before there is another
// one: as many as an inbound listener of ours takes.
const maxUpstreamStreams = maxStreams

func http2(o *corev3.Http2ProtocolOptions) *httpv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: o},
		},
	}
}

func http1() *httpv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
			},
		},
	}
}
