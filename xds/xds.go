package xds

import (
	"errors"
	"fmt"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/ads"
	"signet.example/proxy"
)

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
		calls:  builder{read: reader{in: in}, node: vn, life: lifetimesOf(in.SVIDLifetime), clusters: map[string]egressCluster{}},
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
	b.share = shareOf(connectionsOf(shape), b.sharing(n.out))
	b.section(authzCluster, nil, func() {
		b.add(ads.ClusterType, authzCluster, b.agentCluster(authzCluster, shape.AuthzSocket, unlimited(), proxy.AuthzStreams))
	})
	if b.node.Gateway != nil {
		for _, l := range b.node.Listeners {
			b.gatewayListener(l, n.gateway[l.Port])
		}
	} else {
		b.section(wayoutCluster, nil, func() {
			b.add(ads.ClusterType, wayoutCluster, b.agentCluster(wayoutCluster, shape.WayoutSocket, oneConnection(), proxy.WayoutStreams))
		})
		for _, l := range b.node.Listeners {
			b.ingress(l)
		}
		if b.shape.Capture.Ingress != 0 {
			b.captureIngress()
		}
		routes := b.egress(n.hosts, n.out, n.routes)
		b.tcpEgress(n.out)
		b.serviceAddresses(routes, n.out)
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
