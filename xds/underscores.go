package xds

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"signet.example/proxy"
)

// underscores is what a manager does with headers that have any: an application may read two
// such headers as one, so that a request with one is refused. Where the mesh passes some on
// (docs/decisions/088) the agent refuses the others, by their names, which Envoy cannot: an
// agent that does not know of it is sent what it was sent before.
func (b *builder) underscores() corev3.HttpProtocolOptions_HeadersWithUnderscoresAction {
	if b.passed() == nil {
		return corev3.HttpProtocolOptions_REJECT_REQUEST
	}
	return corev3.HttpProtocolOptions_ALLOW
}

// passed are the headers with underscores that the mesh passes on.
func (b *builder) passed() []string {
	if !b.shape.Underscores {
		return nil
	}
	return b.read.headersWithUnderscores(b.node.Mesh)
}

// questions is the metadata of each question to the agent about a request: of its callers, and
// which headers it is neither to refuse nor to withhold.
func (b *builder) questions(c callers) []*corev3.HeaderValue {
	list := c.metadata()
	if b.unsafe(proxy.UnsafeUserHeaders) || c.passes(proxy.UnsafeUserHeaders) {
		list = append(list, &corev3.HeaderValue{Key: proxy.LetThroughKey, Value: proxy.UnsafeUserHeaders})
	}
	if names := b.passed(); names != nil {
		list = append(list, &corev3.HeaderValue{Key: proxy.UnderscoresKey, Value: strings.Join(names, ",")})
	}
	return list
}
