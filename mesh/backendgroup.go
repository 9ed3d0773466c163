package mesh

// BackendGroupSpec is the spec of kind BackendGroup: a named list of backends.
type BackendGroupSpec struct {
	// VirtualServices is spelled without a capital S in the CRD.
	VirtualServices []Reference `yaml:"virtualservices,omitempty" json:"virtualservices,omitempty"`
	MeshRef         *MeshRef    `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// names: a backend group is a Kubernetes idea, App Mesh gives it no name.
func (s *BackendGroupSpec) names() (*string, *MeshRef) { return nil, s.MeshRef }

func (*BackendGroupSpec) check(*ruler) {}

func (*BackendGroupSpec) lacks(*lacking) {}
