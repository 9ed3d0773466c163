package xds

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/proxy"
)

// dropProxyHeaders removes what only a proxy may say, Envoy or Signet, before
// anybody reads a request: filters and application see none that a caller wrote
// (A33). What Envoy itself adds, it adds later.
func dropProxyHeaders() *earlyv3.HeaderMutation {
	return &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{removed(envoyHeaders()), proxysWord()}}
}

func envoyHeaders() *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "x-envoy-"}}
}

// ingressHeaders is what an inbound manager takes from a request before anybody
// reads it.
func (b *builder) ingressHeaders(c callers) *earlyv3.HeaderMutation {
	m := dropProxyHeaders()
	m.Mutations = append(m.Mutations, b.forged(c)...)
	for _, w := range proxy.WithheldHeaders() {
		if b.unsafe(w.Unsafe) {
			continue
		}
		for _, name := range w.Headers {
			if !c.withholds(w.Unsafe, name) {
				continue
			}
			m.Mutations = append(m.Mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
		}
	}
	return m
}

// unsafeMark names in a resource what its mesh lets through, so that who reads a
// proxy's configuration need not guess; nil if it does not.
func (b *builder) unsafeMark(name string) *corev3.Metadata {
	if !b.unsafe(name) {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		proxy.UnsafeAnnotation: {Fields: map[string]*structpb.Value{name: structpb.NewBoolValue(true)}},
	}}
}

// unsafe reports whether the node's mesh lets through what has this name.
func (b *builder) unsafe(name string) bool { return b.read.unsafe(b.node.Mesh, name) }
