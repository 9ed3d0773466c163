package xds

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/proxy"
)

// builder collects the resources of one view. Its first error wins and ends
// the view: a view is whole or it is not sent.
type builder struct {
	read  reader
	node  *mesh.VirtualNode
	shape proxy.Shape // zero while what all shapes have in common is built
	life  lifetimes
	share uint64 // of the connections, of a listener that has one

	resources []*ads.Resource
	clusters  map[string]egressCluster // those that were added, by name
	err       error
}

// fail keeps the first error.
func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// add validates m by the constraints of Envoy's own protobufs, and encodes it.
// The extensions in it were validated by any, before they were packed.
func (b *builder) add(typeURL, name string, m proto.Message) *ads.Resource {
	if err := validate(m); err != nil {
		b.fail(fmt.Errorf("%s: %w", name, err))
		return nil
	}
	return b.added(ads.NewResource(typeURL, name, m))
}

// addEncoded is add of what was validated and encoded.
func (b *builder) addEncoded(typeURL, name string, body []byte) *ads.Resource {
	return b.added(ads.NewEncoded(typeURL, name, body))
}

func (b *builder) added(r *ads.Resource, err error) *ads.Resource {
	if err != nil {
		b.fail(err)
		return nil
	}
	b.resources = append(b.resources, r)
	return r
}

// validate asks the generated validator, which looks into all of m except an Any.
func validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		return v.ValidateAll()
	}
	return nil
}

// any validates and packs an extension's configuration, deterministically:
// anypb.New would write maps in any order, and each build would be another version.
func (b *builder) any(m proto.Message) *anypb.Any {
	if err := validate(m); err != nil {
		b.fail(fmt.Errorf("%s: %w", m.ProtoReflect().Descriptor().FullName(), err))
	}
	a, err := pack(m)
	if err != nil { // a string that is not UTF-8
		b.fail(fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return a
}

func pack(m proto.Message) (*anypb.Any, error) {
	a := new(anypb.Any)
	err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true})
	return a, err
}

// idOf is the SPIFFE ID that a virtual node presents.
func (b *builder) idOf(n *mesh.VirtualNode) string {
	id, err := identity.ForVirtualNode(b.read.trustDomain(), n.Mesh, n.Name)
	if err != nil {
		b.fail(err)
		return ""
	}
	return id.String()
}

// bundle is the name of the trust domain's own validation context.
func (b *builder) bundle() string { return b.read.trustDomain().IDString() }
