package mesh

// GatewayRouteSpec is the spec of kind GatewayRoute: exactly one of the forms.
type GatewayRouteSpec struct {
	// AWSName defaults to name_namespace (AM-names).
	AWSName    string            `yaml:"awsName,omitempty" json:"awsName,omitempty" check:"len=1..255"`
	GRPCRoute  *GRPCGatewayRoute `yaml:"grpcRoute,omitempty" json:"grpcRoute,omitempty" check:"one"`
	HTTPRoute  *HTTPGatewayRoute `yaml:"httpRoute,omitempty" json:"httpRoute,omitempty" check:"one"`
	HTTP2Route *HTTPGatewayRoute `yaml:"http2Route,omitempty" json:"http2Route,omitempty" check:"one"`
	// Priority is 1000, the last, where absent (the CRD's description).
	Priority          *int64             `yaml:"priority,omitempty" json:"priority,omitempty" check:"min=0 max=1000"`
	VirtualGatewayRef *VirtualGatewayRef `yaml:"virtualGatewayRef,omitempty" json:"virtualGatewayRef,omitempty"`
	MeshRef           *MeshRef           `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// VirtualGatewayRef names a gateway. As in MeshRef, UID is carried only.
type VirtualGatewayRef struct {
	Namespace string `yaml:"namespace,omitempty" json:"namespace,omitempty"`
	Name      string `yaml:"name" json:"name" check:"required len=1..253"`
	UID       string `yaml:"uid,omitempty" json:"uid,omitempty"`
}

// GatewayRouteVirtualService names a service by reference or by ARN.
type GatewayRouteVirtualService struct {
	VirtualServiceRef *Reference `yaml:"virtualServiceRef,omitempty" json:"virtualServiceRef,omitempty" check:"one"`
	VirtualServiceARN string     `yaml:"virtualServiceARN,omitempty" json:"virtualServiceARN,omitempty" check:"one len=1.."`
}

func (s *GatewayRouteSpec) names() (*string, **MeshRef) { return &s.AWSName, &s.MeshRef }

// sameToOthers: nothing refers to it.
func (s *GatewayRouteSpec) sameToOthers(any) bool { return true }

// NamesGateway reports whether a gateway route says its gateway.
func (r *Resource) NamesGateway() bool {
	s, ok := r.Spec.(*GatewayRouteSpec)
	return ok && s.VirtualGatewayRef != nil
}
