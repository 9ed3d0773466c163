package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
)

// What a listener's protocol decides: what is spoken to it and behind it, and what may
// become of a connection. Into a proxy leads the same HTTP manager for all, which takes
// HTTP/1 and HTTP/2, and asks.

// translated reports whether this version translates the protocol. Of tcp, nothing
// would ask about connections.
func translated(protocol string) bool {
	return protocol == mesh.ProtocolHTTP || multiplexed(protocol)
}

// multiplexed protocols are HTTP/2 and what is on top of it.
func multiplexed(protocol string) bool {
	return protocol == mesh.ProtocolHTTP2 || protocol == mesh.ProtocolGRPC
}

// The names of the two versions of HTTP in a TLS handshake (RFC 7301).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

func alpn(protocol string) string {
	if multiplexed(protocol) {
		return alpnHTTP2
	}
	return alpnHTTP1
}

// speaking completes the options of a cluster of this protocol.
func speaking(protocol string, o *httpv3.HttpProtocolOptions) *httpv3.HttpProtocolOptions {
	if multiplexed(protocol) {
		o.UpstreamProtocolOptions = http2(upstreamHTTP2())
	} else {
		o.UpstreamProtocolOptions = http1()
	}
	return o
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
