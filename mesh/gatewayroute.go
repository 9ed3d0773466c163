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

// HTTPGatewayRoute is a gateway route of HTTP/1.1 or HTTP/2.
type HTTPGatewayRoute struct {
	Match  HTTPGatewayRouteMatch  `yaml:"match" json:"match" check:"required"`
	Action HTTPGatewayRouteAction `yaml:"action" json:"action" check:"required"`
}

// HTTPGatewayRouteMatch is which requests a gateway route takes.
type HTTPGatewayRouteMatch struct {
	Headers         []HTTPRouteHeader `yaml:"headers,omitempty" json:"headers,omitempty" check:"items=1..10"`
	Hostname        *HostnameMatch    `yaml:"hostname,omitempty" json:"hostname,omitempty"`
	Method          string            `yaml:"method,omitempty" json:"method,omitempty" check:"enum=CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE"`
	Path            *HTTPPathMatch    `yaml:"path,omitempty" json:"path,omitempty"`
	Port            uint32            `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	Prefix          string            `yaml:"prefix,omitempty" json:"prefix,omitempty" check:"pattern=path"`
	QueryParameters []QueryParameter  `yaml:"queryParameters,omitempty" json:"queryParameters,omitempty" check:"items=1..10"`
}

// HostnameMatch has exactly one member.
type HostnameMatch struct {
	Exact  string `yaml:"exact,omitempty" json:"exact,omitempty" check:"one len=1..253"`
	Suffix string `yaml:"suffix,omitempty" json:"suffix,omitempty" check:"one len=1..253"`
}

// HTTPGatewayRouteAction is where the requests go, and as what.
type HTTPGatewayRouteAction struct {
	Rewrite *HTTPGatewayRouteRewrite `yaml:"rewrite,omitempty" json:"rewrite,omitempty"`
	Target  GatewayRouteTarget       `yaml:"target" json:"target" check:"required"`
}

// HTTPGatewayRouteRewrite changes what the target sees.
type HTTPGatewayRouteRewrite struct {
	Hostname *HostnameRewrite `yaml:"hostname,omitempty" json:"hostname,omitempty"`
	Path     *PathRewrite     `yaml:"path,omitempty" json:"path,omitempty"`
	Prefix   *PrefixRewrite   `yaml:"prefix,omitempty" json:"prefix,omitempty"`
}

// HostnameRewrite switches the rewrite to the virtual service's name.
type HostnameRewrite struct {
	DefaultTargetHostname string `yaml:"defaultTargetHostname,omitempty" json:"defaultTargetHostname,omitempty" check:"enum=ENABLED,DISABLED"`
}

// PathRewrite replaces the path.
type PathRewrite struct {
	Exact string `yaml:"exact,omitempty" json:"exact,omitempty" check:"len=1..255 pattern=path"`
}

// PrefixRewrite replaces the matched prefix: by default, or by a value.
type PrefixRewrite struct {
	DefaultPrefix string `yaml:"defaultPrefix,omitempty" json:"defaultPrefix,omitempty" check:"one enum=ENABLED,DISABLED"`
	Value         string `yaml:"value,omitempty" json:"value,omitempty" check:"one len=1..255"`
}

// GatewayRouteTarget is a virtual service and, where it has several, its port.
type GatewayRouteTarget struct {
	Port           uint32                     `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	VirtualService GatewayRouteVirtualService `yaml:"virtualService" json:"virtualService" check:"required"`
}

// GatewayRouteVirtualService names a service by reference or by ARN.
type GatewayRouteVirtualService struct {
	VirtualServiceRef *Reference `yaml:"virtualServiceRef,omitempty" json:"virtualServiceRef,omitempty" check:"one"`
	VirtualServiceARN string     `yaml:"virtualServiceARN,omitempty" json:"virtualServiceARN,omitempty" check:"one len=1.."`
}

// GRPCGatewayRoute is a gateway route of gRPC.
type GRPCGatewayRoute struct {
	Match  GRPCGatewayRouteMatch  `yaml:"match" json:"match" check:"required"`
	Action GRPCGatewayRouteAction `yaml:"action" json:"action" check:"required"`
}

// GRPCGatewayRouteMatch is which calls a gateway route takes.
type GRPCGatewayRouteMatch struct {
	Hostname    *HostnameMatch    `yaml:"hostname,omitempty" json:"hostname,omitempty"`
	Metadata    []HTTPRouteHeader `yaml:"metadata,omitempty" json:"metadata,omitempty" check:"items=1..10"`
	Port        uint32            `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	ServiceName string            `yaml:"serviceName,omitempty" json:"serviceName,omitempty"`
}

// GRPCGatewayRouteAction is where the calls go, and as what.
type GRPCGatewayRouteAction struct {
	Rewrite *GRPCGatewayRouteRewrite `yaml:"rewrite,omitempty" json:"rewrite,omitempty"`
	Target  GatewayRouteTarget       `yaml:"target" json:"target" check:"required"`
}

// GRPCGatewayRouteRewrite changes what the target sees.
type GRPCGatewayRouteRewrite struct {
	Hostname *HostnameRewrite `yaml:"hostname,omitempty" json:"hostname,omitempty"`
}

func (s *GatewayRouteSpec) names() (*string, *MeshRef) { return &s.AWSName, s.MeshRef }

func (*GatewayRouteSpec) lacks(*lacking) {}
