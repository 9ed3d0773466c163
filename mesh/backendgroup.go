package mesh

import (
	"fmt"
	"slices"
)

// maxBackends is App Mesh's quota of one node's backends (AM-quotas).
const maxBackends = 50

// everyService, as the name of a group, is every service of a namespace to App Mesh's controller.
const everyService = "*"

// BackendGroupSpec is the spec of kind BackendGroup: a named list of backends.
type BackendGroupSpec struct {
	// VirtualServices is spelled without a capital S in the CRD.
	VirtualServices []Reference `yaml:"virtualservices,omitempty" json:"virtualservices,omitempty"`
	MeshRef         *MeshRef    `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// names: a backend group is a Kubernetes idea, App Mesh gives it no name.
func (s *BackendGroupSpec) names() (*string, **MeshRef) { return nil, &s.MeshRef }

func (*BackendGroupSpec) check(*ruler) {}

func (*BackendGroupSpec) lacks(*lacking) {}

// sameToOthers: the services are all that nodes look at.
func (s *BackendGroupSpec) sameToOthers(old any) bool {
	return slices.Equal(s.VirtualServices, old.(*BackendGroupSpec).VirtualServices)
}

// Services are the virtual services of a backend group; ok is false for an object of
// another kind.
func (r *Resource) Services() (list []Reference, ok bool) {
	s, ok := r.Spec.(*BackendGroupSpec)
	if !ok {
		return nil, false
	}
	return s.VirtualServices, true
}

// group finds the services of a backend group.
func (b *builder) group(r *Resource) {
	for i, ref := range r.Spec.(*BackendGroupSpec).VirtualServices {
		if to := b.referent(r, fmt.Sprintf("spec.virtualservices[%d]", i), KindVirtualService, ref); to != nil {
			b.link(r, to)
		}
	}
}

// servicesOf are the services of a group that are there; group reports the others.
func (b *builder) servicesOf(g *Resource) []*Resource {
	var list []*Resource
	for _, ref := range g.Spec.(*BackendGroupSpec).VirtualServices {
		namespace := ref.Namespace
		if namespace == "" {
			namespace = g.Namespace
		}
		if to := b.graph.objects.Get(objectKey{KindVirtualService, g.Mesh, namespace, ref.Name}); to != nil {
			list = append(list, to)
		}
	}
	return list
}
