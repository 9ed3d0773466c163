package mesh

// MeshSpec is the spec of kind Mesh.
type MeshSpec struct {
	// AWSName defaults to metadata.name (AM-names).
	AWSName string `yaml:"awsName,omitempty" json:"awsName,omitempty" check:"len=1..255"`
	// NamespaceSelector picks the Kubernetes namespaces that belong to the mesh.
	NamespaceSelector *LabelSelector `yaml:"namespaceSelector,omitempty" json:"namespaceSelector,omitempty"`
	// EgressFilter defaults to DROP_ALL (AM-egress).
	EgressFilter         *EgressFilter         `yaml:"egressFilter,omitempty" json:"egressFilter,omitempty"`
	MeshOwner            string                `yaml:"meshOwner,omitempty" json:"meshOwner,omitempty"`
	MeshServiceDiscovery *MeshServiceDiscovery `yaml:"meshServiceDiscovery,omitempty" json:"meshServiceDiscovery,omitempty"`
}

func (s *MeshSpec) applyDefaults() {
	if s.EgressFilter == nil {
		s.EgressFilter = &EgressFilter{Type: EgressDropAll}
	}
}

// The egress filters.
const (
	EgressDropAll  = "DROP_ALL"
	EgressAllowAll = "ALLOW_ALL"
)

func (s *MeshSpec) names() (*string, **MeshRef) { return &s.AWSName, nil }

// sameToOthers: everything is made anew where a mesh changes ([Graph.With]).
func (s *MeshSpec) sameToOthers(any) bool { return true }

func (*MeshSpec) check(*ruler) {}
