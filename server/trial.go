package server

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/xds"
)

// nodeInputs is what a virtual node's view is made of, beside the node and its
// shape. Each part is immutable: equal inputs give an equal view.
type nodeInputs struct {
	model     *model
	endpoints *fleet.Registered
	stamp     string // the policy revision that routes carry
}

// at is what is registered for a port. A node that has proxies but none on the
// port has an empty list there, not nil: its cluster stays EDS.
func (in nodeInputs) at(node proxy.Ref, port uint32) []xds.Endpoint {
	known := in.endpoints.Of(node)
	if known == nil {
		return nil
	}
	list := []xds.Endpoint{}
	for _, n := range known {
		if slices.Contains(n.Ports, port) {
			list = append(list, xds.Endpoint{Address: n.Address, Port: port, Healthy: n.Healthy})
		}
	}
	return list
}

// translation makes views from one look; what the shapes of a virtual node have
// in common is translated once.
type translation struct {
	*views
	in    nodeInputs
	nodes map[proxy.Ref]*xds.Node
}

func (v *views) translate(in nodeInputs) *translation {
	return &translation{v, in, map[proxy.Ref]*xds.Node{}}
}

// view makes the view of one virtual node in one shape.
func (t *translation) view(key nodeKey) (*ads.Set, error) {
	name := key.node.String()
	set, err := t.set(key)
	if err != nil {
		return nil, fmt.Errorf("%w: build %s: %w", fault.Unavailable, name, err)
	}
	return closeView(set, name, t.in.stamp, nodeTypes)
}

// set is the view without the resource that closes it.
func (t *translation) set(key nodeKey) (*ads.Set, error) {
	if t.nodes[key.node] == nil {
		n, err := xds.Translate(xds.Input{
			Graph: t.in.model.graph, TrustDomain: t.td, Endpoints: t.in.at, Managed: t.in.model.managed,
			PolicyRevision: t.in.stamp, SVIDLifetime: t.lifetime,
			RequirePostQuantum: t.postQuantum,
		}, key.node)
		if err != nil {
			return nil, err
		}
		t.nodes[key.node] = n
	}
	return t.nodes[key.node].View(key.shape)
}

// trial is what a model that is not stored yet would serve. When it is stored
// and nothing else has changed, that is what is published: what was checked is
// what is served, and nothing is translated twice.
type trial struct {
	from nodeInputs
	sets map[nodeKey]*ads.Set
}

// set is what was tried for a view, nil if nothing was or from something else.
func (t *trial) set(in nodeInputs, key nodeKey) *ads.Set {
	if t == nil || t.from != in {
		return nil
	}
	return t.sets[key]
}

// try builds what differs between now and next: every virtual node once as a
// proxy of some shape would get it, so that what xds cannot say is refused before
// it is stored, and the views that are followed. refused is called for each node
// that cannot be translated. What a proxy's own shape does not allow is between
// it and its agent: it refuses no change.
func (v *views) try(now, next *model, refused func(proxy.Ref, error)) *trial {
	v.mu.Lock()
	in := v.inputs().nodeInputs
	was := in
	was.model, in.model = now, next
	changed := in.touched(was).in(next.graph)
	followed := map[proxy.Ref][]nodeKey{}
	for _, at := range changed {
		followed[at] = slices.Collect(maps.Keys(v.shapes[at]))
	}
	v.mu.Unlock()
	t, tried := v.translate(in), &trial{from: in, sets: map[nodeKey]*ads.Set{}}
	for _, at := range changed {
		if _, err := t.set(nodeKey{at, anyShape}); err != nil {
			refused(at, err)
			continue
		}
		for _, key := range followed[at] {
			if set, err := t.view(key); err == nil {
				tried.sets[key] = set
			}
		}
	}
	return tried
}

// anyShape is what any proxy may have; nobody connects with it.
var anyShape = proxy.Shape{
	Bind: "127.0.0.2", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 2}), proxy.DefaultEgressPort)},
	AuthzSocket: filepath.Join("/run", "signet", "authz.sock"), WayoutSocket: filepath.Join("/run", "signet", "wayout.sock"),
}
