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

// EgressFilter is what happens to traffic to destinations outside the mesh.
type EgressFilter struct {
	Type string `yaml:"type" json:"type" check:"required enum=ALLOW_ALL,DROP_ALL offer=DROP_ALL"`
}

// MeshServiceDiscovery is the address family of the whole mesh. The CRD knows
// two of the API's four preferences; a superset is accepted, so that a mesh
// written against the API can be written here.
type MeshServiceDiscovery struct {
	IPPreference string `yaml:"ipPreference,omitempty" json:"ipPreference,omitempty" check:"enum=IPv6_PREFERRED,IPv4_PREFERRED,IPv4_ONLY,IPv6_ONLY offer=IPv4_PREFERRED,IPv4_ONLY"`
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

func (s *MeshSpec) names() (*string, *MeshRef) { return &s.AWSName, nil }

func (*MeshSpec) check(*ruler) {}
