package xds

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/mesh"
)

// Withheld are headers by which frameworks let a request say that it is another
// than it is. A policy decides on the method, path, host and peer that are there;
// so no application gets these from a caller, unless its mesh lets a kind of
// them through by name (decision 025). Policies do not see them either.
//
// X-Forwarded-For and X-Forwarded-Proto are not among them: Envoy appends the
// peer's address to the one, and sets the other to the truth.
type Withheld struct {
	// Unsafe is the name by which a mesh lets them through.
	Unsafe  string
	Headers []string
}

// WithheldHeaders is the default of every mesh.
func WithheldHeaders() []Withheld {
	return []Withheld{
		{mesh.UnsafePathHeaders, []string{"x-original-url", "x-rewrite-url", "x-original-uri", "x-original-path", "x-forwarded-uri", "x-forwarded-path", "x-forwarded-prefix"}},
		{mesh.UnsafeMethodHeaders, []string{"x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "x-forwarded-method"}},
		{mesh.UnsafeHostHeaders, []string{
			"forwarded", "x-forwarded-host", "x-forwarded-server", "x-forwarded-port", "x-forwarded-scheme", "x-forwarded-protocol", "x-forwarded-ssl",
			"x-host", "x-original-host", "x-http-host-override", "x-url-scheme", "front-end-https",
		}},
		{mesh.UnsafeAddressHeaders, []string{
			"x-real-ip", "x-client-ip", "client-ip", "true-client-ip", "x-cluster-client-ip", "x-originating-ip", "x-remote-ip", "x-remote-addr",
			"cf-connecting-ip", "fastly-client-ip", "x-original-forwarded-for",
		}},
	}
}

// ingressHeaders is what an inbound manager takes from a request before anybody
// reads it.
func (b *builder) ingressHeaders() *earlyv3.HeaderMutation {
	m := dropProxyHeaders()
	for _, w := range WithheldHeaders() {
		if b.unsafe(w.Unsafe) {
			continue
		}
		for _, name := range w.Headers {
			m.Mutations = append(m.Mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
		}
	}
	return m
}

// unsafeMark says in a resource what its mesh lets through, so that who reads a
// proxy's configuration need not guess; nil if it does not.
func (b *builder) unsafeMark(name string) *corev3.Metadata {
	if !b.unsafe(name) {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		mesh.UnsafeAnnotation: {Fields: map[string]*structpb.Value{name: structpb.NewBoolValue(true)}},
	}}
}

// unsafe reports whether the node's mesh lets through what has this name.
func (b *builder) unsafe(name string) bool { return b.in.Graph.Unsafe(b.node.Mesh, name) }
