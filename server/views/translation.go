package views

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/parallel"
	"signet.example/proxy"
	"signet.example/server/awaited"
	"signet.example/server/cloudmap"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/xds"
)

// nodeInputs is what a virtual node's view is made of, beside the node and its
// shape. Each part is immutable: equal inputs give an equal view.
type nodeInputs struct {
	model     Model
	endpoints *fleet.Registered
	awaited   *awaited.Nodes
	found     *cloudmap.Answers
	stamp     string // the policy revision that routes carry
}

// at is what is registered for a port, or was found where nothing is (D19). A node that has proxies but none on the
// port has an empty list there, not nil: its cluster stays EDS.
func (in nodeInputs) at(node proxy.Ref, port uint32) []xds.Endpoint {
	known := in.endpoints.Of(node)
	if known == nil || in.awaits(node) {
		return in.foundAt(node, port)
	}
	list := []xds.Endpoint{}
	for _, n := range known {
		if slices.Contains(n.Ports, port) {
			list = append(list, xds.Endpoint{Address: n.Address, Port: port, Healthy: n.HealthyAt(port)})
		}
	}
	return list
}

// foundAt is what was found of a virtual node. The port of an instance is that of the
// one listener that its node has.
func (in nodeInputs) foundAt(node proxy.Ref, port uint32) []xds.Endpoint {
	var list []xds.Endpoint
	instances, _ := in.found.Of(node)
	for _, i := range instances {
		e := xds.Endpoint{Address: i.Address, Port: port, Healthy: true}
		if n := in.model.Graph().Node(node); i.Port != 0 && n != nil && len(n.Listeners) == 1 {
			e.Port = i.Port
		}
		list = append(list, e)
	}
	return list
}

// outside reports whether the endpoints of a node are such as were found.
func (in nodeInputs) outside(node proxy.Ref) bool {
	_, asked := in.found.Of(node)
	return asked && (in.endpoints.Of(node) == nil || in.awaits(node))
}

// awaits reports whether the Binding of a node does not count yet.
func (in nodeInputs) awaits(node proxy.Ref) bool { return in.awaited.Awaits(node, in.endpoints.Ready) }

// with is what views are made of when next is stored in the place of now.
func (in nodeInputs) with(now, next Model) nodeInputs {
	in.model, in.awaited = next, awaited.After(in.awaited, next.Rebound(now), now, next)
	return in
}

// translation makes views from one look; what the shapes of a virtual node have
// in common is translated once.
type translation struct {
	cfg   Config
	in    nodeInputs
	nodes map[proxy.Ref]*xds.Node
	pool  *ads.Pool

	memory *xds.Memory
	past   *xds.Past
}

func (v *Views) translate(in nodeInputs) *translation {
	return &translation{v.cfg, in, map[proxy.Ref]*xds.Node{}, &v.pool, nil, nil}
}

// following is translate of what proxies follow: that is made again, and remembered; what is
// only tried would take memory for all of a mesh, and is forgotten with the attempt.
func (v *Views) following(in nodeInputs) *translation {
	t := v.translate(in).with(&v.memory)
	t.past = &v.past
	return t
}

func (t *translation) with(memory *xds.Memory) *translation {
	t.memory = memory
	return t
}

// view makes the view of one virtual node in one shape.
func (t *translation) view(key Key) (*ads.Set, error) {
	name := key.Node.String()
	set, err := t.set(key)
	if err != nil {
		return nil, fmt.Errorf("%w: build %s: %w", fault.Unavailable, name, err)
	}
	g := t.in.model.Graph()
	last := &api.View{Name: name, PolicyRevision: t.in.stamp, TlsFiles: g.Node(key.Node).TLSFiles()}
	if key.Shape.ServiceAddresses {
		last.Addresses = g.AddressesFor(key.Node, t.in.model.Managed)
	}
	return closeView(t.pool.Share(set), last, nodeTypes)
}

// set is the view without the resource that closes it.
func (t *translation) set(key Key) (*ads.Set, error) {
	if t.nodes[key.Node] == nil {
		n, err := xds.Translate(xds.Input{
			Graph: t.in.model.Graph(), TrustDomain: t.cfg.TrustDomain, Endpoints: t.in.at, Outside: t.in.outside, Managed: t.in.model.Managed, Awaited: t.in.awaits,
			PolicyRevision: t.in.stamp, SVIDLifetime: t.cfg.SVIDLifetime,
			RequirePostQuantum: t.cfg.PostQuantum, Memory: t.memory, Past: t.past,
		}, key.Node)
		if err != nil {
			return nil, err
		}
		t.nodes[key.Node] = n
	}
	return t.nodes[key.Node].View(key.Shape)
}

// Candidate is what a model that is not stored yet would serve. When it is stored
// and nothing else has changed, that is what is published: what was checked is
// what is served, and nothing is translated twice.
type Candidate struct {
	from nodeInputs
	sets map[Key]*ads.Set
}

// set is what was tried for a view, nil if nothing was or from something else.
func (t *Candidate) set(in nodeInputs, key Key) *ads.Set {
	if t == nil || t.from != in {
		return nil
	}
	return t.sets[key]
}

// Try builds what differs between now and next: every virtual node once as a
// proxy of some shape would get it, so that what xds cannot say is refused before
// it is stored, and the views that are followed. refused is called for each node
// that cannot be translated. What a proxy's own shape does not allow is between
// it and its agent: it refuses no change.
func (v *Views) Try(now, next Model, refused func(proxy.Ref, error)) *Candidate {
	v.mu.Lock()
	in := v.source.Look().nodeInputs()
	was := in
	was.model, in = now, in.with(now, next)
	changed := in.affected(was).in(next.Graph())
	followed := map[proxy.Ref][]Key{}
	for _, at := range changed {
		followed[at] = slices.Collect(maps.Keys(v.shapes[at]))
	}
	v.mu.Unlock()
	sets, errs := make([]map[Key]*ads.Set, len(changed)), make([]error, len(changed))
	var attempt xds.Memory // a service is the same for all who call it
	parallel.Each(len(changed), func(i int) {
		at := changed[i]
		t := v.translate(in).with(&attempt)
		if len(followed[at]) > 0 {
			t = v.following(in)
		}
		sets[i], errs[i] = t.try(at, followed[at])
	})
	tried := &Candidate{from: in, sets: map[Key]*ads.Set{}}
	for i, at := range changed {
		if errs[i] != nil {
			refused(at, errs[i])
		}
		maps.Copy(tried.sets, sets[i])
	}
	return tried
}

// try translates one virtual node: what it takes is let go of when its sets are made.
func (t *translation) try(at proxy.Ref, followed []Key) (map[Key]*ads.Set, error) {
	if _, err := t.set(Key{at, anyShapeOf(at)}); err != nil {
		return nil, err
	}
	sets := make(map[Key]*ads.Set, len(followed))
	for _, key := range followed {
		if set, err := t.view(key); err == nil {
			sets[key] = set
		}
	}
	return sets, nil
}

// anyShapeOf is what any proxy of r may have; nobody connects with it.
func anyShapeOf(r proxy.Ref) proxy.Shape {
	s := anyShape
	s.Suit(r)
	return s
}

var anyShape = proxy.Shape{
	Bind: "127.0.0.2", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 2}), proxy.DefaultEgressPort)},
	AuthzSocket: filepath.Join("/run", "signet", "authz.sock"), WayoutSocket: filepath.Join("/run", "signet", "wayout.sock"),
}
