package xds

import (
	"errors"
	"fmt"
	"slices"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/proxy"
)

// DefaultSVIDLifetime is used where an Input has none (D15).
const DefaultSVIDLifetime = time.Hour

// Endpoint is one address of a virtual node, that an agent registered or that was found elsewhere.
type Endpoint struct {
	Address string
	Port    uint32
	Healthy bool
}

// Input is everything that a view depends on, except for whose view it is.
type Input struct {
	// Graph is the mesh with its references resolved.
	Graph *mesh.Graph
	// TrustDomain is the one of every identity that the mesh gives.
	TrustDomain spiffeid.TrustDomain
	// Endpoints returns the registered endpoints of a node's port, nil when none
	// is registered. The order does not matter. A nil func means none anywhere.
	Endpoints func(node proxy.Ref, port uint32) []Endpoint
	// Outside reports whether a node's endpoints are none that agents registered, but were
	// looked for elsewhere: who is there is as little known as behind a name. A nil func
	// means of none.
	Outside func(node proxy.Ref) bool
	// Managed reports whether an agent may host the node (a binding names it). Such
	// a node is called by mTLS even while no endpoint of it is registered: else
	// the loss of its last registration would turn calls into plaintext. A nil
	// func means that only nodes with registered endpoints are managed.
	Managed func(node proxy.Ref) bool
	// Strict reports whether a managed listener was hardened, so that it takes no
	// plaintext (D17). A nil func means that none was.
	Strict func(node proxy.Ref) bool
	// RequirePostQuantum reports whether proxies of a mesh refuse a TLS connection
	// without a post-quantum key exchange. A nil func means that none does.
	RequirePostQuantum func(mesh string) bool
	// PolicyRevision is stamped on what the proxy asks the agent
	// (D3). An agent that does not know it denies.
	PolicyRevision string
	// SVIDLifetime bounds every connection; 0 means DefaultSVIDLifetime.
	SVIDLifetime time.Duration
	// Memory, if set, is of translations before this one.
	Memory *Memory
}

// ErrNoNode is returned when the mesh has no such virtual node.
var ErrNoNode = errors.New("no such virtual node")

// Build translates one view: clusters, endpoints, listeners and routes of one
// virtual node in one shape. Secrets are named in it, never contained.
func Build(in Input, node proxy.Ref, shape proxy.Shape) (*ads.Set, error) {
	n, err := Translate(in, node)
	if err != nil {
		return nil, err
	}
	return n.View(shape)
}

// Node is one virtual node translated as far as all of its shapes have in
// common, which is most of it: what it calls, and how. Use it from one goroutine.
type Node struct {
	calls  builder
	hosts  []encodedHost
	out    []outward                // by tcp
	routes map[uint32]*ads.Resource // the hosts as a resource, by egress port, 0 for a socket
	// gateway has the routes of a virtual gateway, by the listener's port; it has no hosts.
	gateway map[uint32][]*routev3.Route
}

// Translate begins the views of one virtual node.
func Translate(in Input, node proxy.Ref) (*Node, error) {
	if in.Graph == nil {
		return nil, errors.New("xds: no mesh graph")
	}
	vn := in.Graph.Node(node)
	if vn == nil {
		return nil, fmt.Errorf("xds: mesh %q, %s %q: %w", node.Mesh, node.Kind.Words(), node.Name, ErrNoNode)
	}
	if in.SVIDLifetime <= 0 {
		in.SVIDLifetime = DefaultSVIDLifetime
	}
	n := &Node{
		calls:  builder{in: in, node: vn, life: lifetimesOf(in.SVIDLifetime), clusters: map[string]egressCluster{}},
		routes: map[uint32]*ads.Resource{},
	}
	if vn.Gateway == nil {
		n.hosts, n.out = n.calls.virtualHosts(), n.calls.outwards()
	} else {
		n.gateway = map[uint32][]*routev3.Route{}
		for _, l := range vn.Listeners {
			n.gateway[l.Port] = n.calls.gatewayRoutes(l)
		}
	}
	if n.calls.err != nil {
		return nil, n.failed(n.calls.err)
	}
	return n, nil
}

// View completes the view of one shape.
func (n *Node) View(shape proxy.Shape) (*ads.Set, error) {
	if err := shape.Validate(); err != nil {
		return nil, n.failed(err)
	}
	if shape.Alone != n.calls.node.Ref.Gateway() {
		return nil, n.failed(errors.New("its shape is not of its kind"))
	}
	b := n.calls
	b.shape, b.resources = shape, slices.Clip(b.resources)
	b.add(ads.ClusterType, authzCluster, b.agentCluster(authzCluster, shape.AuthzSocket, unlimited(), proxy.AuthzStreams))
	if b.node.Gateway != nil {
		for _, l := range b.node.Listeners {
			b.gatewayListener(l, n.gateway[l.Port])
		}
	} else {
		b.add(ads.ClusterType, wayoutCluster, b.agentCluster(wayoutCluster, shape.WayoutSocket, oneConnection(), proxy.WayoutStreams))
		for _, l := range b.node.Listeners {
			b.ingress(l)
		}
		b.egress(n)
		b.tcpEgress(n.out)
	}
	if b.err != nil {
		return nil, n.failed(b.err)
	}
	set, err := ads.NewSet(b.resources...)
	if err != nil {
		return nil, n.failed(err)
	}
	return set, nil
}

func (n *Node) failed(err error) error {
	return fmt.Errorf("xds: mesh %q, %s %q: %w", n.calls.node.Mesh, n.calls.node.Kind.Words(), n.calls.node.Name, err)
}

// builder collects the resources of one view. Its first error wins and ends
// the view: a view is whole or it is not sent.
type builder struct {
	in    Input
	node  *mesh.VirtualNode
	shape proxy.Shape // zero while what all shapes have in common is built
	life  lifetimes

	resources []*ads.Resource
	clusters  map[string]egressCluster // those that were added, by name
	usual     *retries                 // where a route declares none, once made
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
	id, err := identity.ForVirtualNode(b.in.TrustDomain, n.Mesh, n.Name)
	if err != nil {
		b.fail(err)
		return ""
	}
	return id.String()
}

// bundle is the name of the trust domain's own validation context.
func (b *builder) bundle() string { return b.in.TrustDomain.IDString() }
