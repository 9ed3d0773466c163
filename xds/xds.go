package xds

import (
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
	"signet.example/identity"
	"signet.example/mesh"
)

// DefaultSVIDLifetime is used where an Input has none (DESIGN decision 15).
const DefaultSVIDLifetime = time.Hour

// Endpoint is one address that an agent registered for a virtual node.
type Endpoint struct {
	Address string
	Port    uint32
	Healthy bool
}

// Input is everything that a view depends on, but for whose view it is.
type Input struct {
	// Graph is the mesh with its references resolved.
	Graph *mesh.Graph
	// TrustDomain is the one of every identity that the mesh gives.
	TrustDomain spiffeid.TrustDomain
	// Endpoints returns the registered endpoints of a node's port, nil when none
	// is registered. The order does not matter. A nil func means none anywhere.
	Endpoints func(mesh, node string, port uint32) []Endpoint
	// Managed tells whether an agent may host the node (a binding names it). Such
	// a node is called by mTLS even while no endpoint of it is registered: else
	// the loss of its last registration would turn calls into plaintext. A nil
	// func means that only nodes with registered endpoints are managed.
	Managed func(mesh, node string) bool
	// Strict tells whether a managed listener was hardened, so that it takes no
	// plaintext (DESIGN decision 17). A nil func means that none was.
	Strict func(mesh, node string) bool
	// PolicyRevision is stamped on what the proxy asks the agent (DESIGN decision
	// 3). An agent that does not know it denies.
	PolicyRevision string
	// SVIDLifetime bounds every connection; 0 means DefaultSVIDLifetime.
	SVIDLifetime time.Duration
}

// ErrNoNode is returned when the mesh has no such virtual node.
var ErrNoNode = errors.New("no such virtual node")

// Build translates one view: clusters, endpoints, listeners and routes of one
// virtual node in one shape. Secrets are named in it, never contained.
func Build(in Input, meshName, node string, shape Shape) (*ads.Set, error) {
	if in.Graph == nil {
		return nil, errors.New("xds: no mesh graph")
	}
	vn := in.Graph.Node(meshName, node)
	if vn == nil {
		return nil, fmt.Errorf("xds: mesh %q, virtual node %q: %w", meshName, node, ErrNoNode)
	}
	if err := shape.Validate(); err != nil {
		return nil, fmt.Errorf("xds: mesh %q, virtual node %q: %w", meshName, node, err)
	}
	b := newBuilder(in, vn, shape)
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("xds: mesh %q, virtual node %q: %w", meshName, node, err)
	}
	set, err := ads.NewSet(b.resources...)
	if err != nil {
		return nil, fmt.Errorf("xds: mesh %q, virtual node %q: %w", meshName, node, err)
	}
	return set, nil
}

// builder collects the resources of one view. Its first error wins and ends
// the view: a view is whole or it is not sent.
type builder struct {
	in    Input
	node  *mesh.VirtualNode
	shape Shape
	life  lifetimes

	resources []*ads.Resource
	clusters  map[string]egressCluster // those that were added, by name
	err       error
}

func newBuilder(in Input, vn *mesh.VirtualNode, shape Shape) *builder {
	if in.SVIDLifetime <= 0 {
		in.SVIDLifetime = DefaultSVIDLifetime
	}
	return &builder{
		in: in, node: vn, shape: shape,
		life:     lifetimesOf(in.SVIDLifetime),
		clusters: map[string]egressCluster{},
	}
}

func (b *builder) build() error {
	b.add(ads.ClusterType, authzCluster, b.authzCluster())
	for _, l := range b.node.Listeners {
		b.ingress(l)
	}
	b.egress()
	return b.err
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
	r, err := ads.NewResource(typeURL, name, m)
	if err != nil {
		b.fail(err)
		return nil
	}
	b.resources = append(b.resources, r)
	return r
}

// validate asks the generated validator, which looks into all of m but an Any.
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
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil { // a string that is not UTF-8
		b.fail(fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return a
}

// idOf is the SPIFFE ID that a virtual node presents.
func (b *builder) idOf(n *mesh.VirtualNode) string {
	id, err := identity.ForVirtualNode(b.in.TrustDomain, n.Mesh, n.Name)
	if err != nil {
		b.fail(err)
		return ""
	}
	return id.String()
}

// bundle is the name of the trust domain's own validation context.
func (b *builder) bundle() string { return b.in.TrustDomain.IDString() }
