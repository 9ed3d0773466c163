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
	Authorization string `yaml:"authorization" json:"authorization" check:"required enum=enforce,observe"`
}

// names: it has its mesh's.
func (*MeshOptionsSpec) names() (*string, **MeshRef) { return nil, nil }

func (*MeshOptionsSpec) check(*ruler) {}

func (*MeshOptionsSpec) lacks(*lacking) {}

// sameToOthers: a graph is made anew where a mesh or its options change.
func (*MeshOptionsSpec) sameToOthers(any) bool { return false }

// Observes reports whether policies of the mesh's nodes only observe, by the mesh's options;
// a node's own may say otherwise.
func (g *Graph) Observes(mesh string) bool {
	m := g.mesh(mesh)
	if m == nil {
		return false
	}
	o := g.named.Get(NameOf(KindMeshOptions, mesh, m.resource.ObjectName))
	return o != nil && o.Spec.(*MeshOptionsSpec).Authorization == AuthorizationObserve
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
