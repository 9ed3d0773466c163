package mesh

import (
	"slices"

	"signet.example/proxy"
)

// What becomes of a request that the policy denies.
const (
	// AuthorizationEnforce is the default: it is denied.
	AuthorizationEnforce = "enforce"
	// AuthorizationObserve lets it through, and records that it would have been denied.
	AuthorizationObserve = "observe"
)

// MeshOptionsSpec is the spec of kind MeshOptions: what App Mesh's meshes have no field for.
// An object of it has the name of the mesh that it is about.
type MeshOptionsSpec struct {
	// Authorization is that of all virtual nodes and gateways whose own options say none.
	Authorization string `yaml:"authorization,omitempty" json:"authorization,omitempty" check:"enum=enforce,observe"`
	// EnvoyHeaders are those beginning with x-envoy- that proxies add to requests for their
	// applications and to answers: passed on, as App Mesh's did, where it is left out.
	EnvoyHeaders string `yaml:"envoyHeaders,omitempty" json:"envoyHeaders,omitempty" check:"enum=pass,suppress"`
	// HeadersWithUnderscores are the names of headers that proxies pass on although they have an
	// underscore. No other one with an underscore reaches a route, a policy or an application.
	HeadersWithUnderscores []string `yaml:"headersWithUnderscores,omitempty" json:"headersWithUnderscores,omitempty" check:"items=1..20 each.len=1..100 each.pattern=token"`
	// ServiceAddresses gives each virtual service of the mesh a loopback address, at which a proxy
	// that is asked to has its application call it.
	ServiceAddresses *ServiceAddresses `yaml:"serviceAddresses,omitempty" json:"serviceAddresses,omitempty"`
}

const envoyHeadersSuppress = "suppress"

// names: it has its mesh's.
func (*MeshOptionsSpec) names() (*string, **MeshRef) { return nil, nil }

func (s *MeshOptionsSpec) check(ru *ruler) {
	if s.Authorization == "" && s.EnvoyHeaders == "" && s.HeadersWithUnderscores == nil && s.ServiceAddresses == nil {
		ru.fail("spec", "says nothing of the mesh: want authorization, envoyHeaders, headersWithUnderscores or serviceAddresses")
	}
	s.ServiceAddresses.check(ru, "spec.serviceAddresses")
}

func (*MeshOptionsSpec) lacks(*lacking) {}

// sameToOthers: a graph is made anew where a mesh or its options change.
func (*MeshOptionsSpec) sameToOthers(any) bool { return false }

// Observes reports whether policies of the mesh's nodes only observe, by the mesh's options;
// a node's own may say otherwise.
func (g *Graph) Observes(mesh string) bool {
	return g.meshOptions(mesh).Authorization == AuthorizationObserve
}

// Authorization is what becomes of requests that the policy of the node denies.
func (n *VirtualNode) Authorization() string {
	if n.Observed {
		return AuthorizationObserve
	}
	return AuthorizationEnforce
}

// AuthorizedBy are the virtual nodes and gateways of which an object says the authorization: that of its
// options, or, by the options of a mesh, all of it.
func (g *Graph) AuthorizedBy(options Name) []*VirtualNode {
	r, about := g.named.Get(options), options.Kind.about()
	switch {
	case r == nil:
	case options.Kind == KindMeshOptions:
		if r.Spec.(*MeshOptionsSpec).Authorization != "" {
			return g.Nodes(options.Mesh)
		}
	case about != "" && optionsIn(r).Authorization != "":
		if n := g.nodes.Get(NameOf(about, options.Mesh, options.Name)); n != nil {
			return []*VirtualNode{n}
		}
	}
	return nil
}

// Enforces reports whether there is a virtual node or gateway whose policy denies, and does not only observe.
func (g *Graph) Enforces() bool {
	for _, name := range g.Meshes() {
		if slices.ContainsFunc(g.Nodes(name), func(n *VirtualNode) bool { return !n.Observed }) {
			return true
		}
	}
	return false
}

// WithoutEnvoyHeaders reports whether the mesh's proxies add no x-envoy-* headers.
func (g *Graph) WithoutEnvoyHeaders(mesh string) bool {
	return g.meshOptions(mesh).EnvoyHeaders == envoyHeadersSuppress
}

// Settings are what a mesh says of all that is in it, and what its options do. They are there to be
// compared: equal ones say the same.
type Settings struct {
	mesh    *meshInfo
	options *Resource
}

// Settings of a mesh.
func (g *Graph) Settings(mesh string) Settings {
	m := g.mesh(mesh)
	if m == nil {
		return Settings{}
	}
	return Settings{m, g.named.Get(NameOf(KindMeshOptions, mesh, m.resource.ObjectName))}
}

// meshOptions are empty where a mesh has none.
func (g *Graph) meshOptions(mesh string) MeshOptionsSpec {
	o := g.Settings(mesh).options
	if o == nil {
		return MeshOptionsSpec{}
	}
	return *o.Spec.(*MeshOptionsSpec)
}

// Loosened are the virtual nodes and gateways whose policy enforced in a graph before and only
// observes in this one; none of those that are new.
func (g *Graph) Loosened(before *Graph) (list []proxy.Ref) {
	for name := range g.nodes.Differ(before.nodes) {
		if now, was := g.nodes.Get(name), before.nodes.Get(name); now != nil && was != nil && now.Observed && !was.Observed {
			list = append(list, now.Ref)
		}
	}
	slices.SortFunc(list, proxy.Ref.Compare)
	return list
}
