package mesh

// VirtualRouterSpec is the spec of kind VirtualRouter; its routes are inline.
type VirtualRouterSpec struct {
	// AWSName defaults to name_namespace (AM-names).
	AWSName   string                  `yaml:"awsName,omitempty" json:"awsName,omitempty" check:"len=1..255"`
	Listeners []VirtualRouterListener `yaml:"listeners,omitempty" json:"listeners,omitempty" check:"items=1.."`
	// Routes are at most 50 (AM-quotas).
	Routes  []RouteSpec `yaml:"routes,omitempty" json:"routes,omitempty" check:"items=0..50"`
	MeshRef *MeshRef    `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// RouteSpec is one route: exactly one of the four forms.
type RouteSpec struct {
	Name       string     `yaml:"name" json:"name" check:"required len=1..255"`
	GRPCRoute  *GRPCRoute `yaml:"grpcRoute,omitempty" json:"grpcRoute,omitempty" check:"one"`
	HTTPRoute  *HTTPRoute `yaml:"httpRoute,omitempty" json:"httpRoute,omitempty" check:"one"`
	HTTP2Route *HTTPRoute `yaml:"http2Route,omitempty" json:"http2Route,omitempty" check:"one"`
	TCPRoute   *TCPRoute  `yaml:"tcpRoute,omitempty" json:"tcpRoute,omitempty" check:"one"`
	// Priority: 0 is tried first, 1000 (also where absent) last.
	Priority *int64 `yaml:"priority,omitempty" json:"priority,omitempty" check:"min=0 max=1000"`
}

// WeightedTargetSpec is one target; its share is its weight of the sum.
type WeightedTargetSpec struct {
	VirtualNodeRef *Reference `yaml:"virtualNodeRef,omitempty" json:"virtualNodeRef,omitempty" check:"one"`
	VirtualNodeARN string     `yaml:"virtualNodeARN,omitempty" json:"virtualNodeARN,omitempty" check:"one len=1.."`
	Weight         int64      `yaml:"weight" json:"weight" check:"required min=0 max=100"`
	Port           uint32     `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
}

func (s *VirtualRouterSpec) names() (*string, **MeshRef) { return &s.AWSName, &s.MeshRef }

// sameToOthers: services look at its name alone.
func (s *VirtualRouterSpec) sameToOthers(any) bool { return true }
