package mesh

// VirtualGatewaySpec is the spec of kind VirtualGateway.
type VirtualGatewaySpec struct {
	// AWSName defaults to name_namespace (AM-names).
	AWSName              string                   `yaml:"awsName,omitempty" json:"awsName,omitempty" check:"len=1..255"`
	NamespaceSelector    *LabelSelector           `yaml:"namespaceSelector,omitempty" json:"namespaceSelector,omitempty"`
	PodSelector          *LabelSelector           `yaml:"podSelector,omitempty" json:"podSelector,omitempty"`
	GatewayRouteSelector *LabelSelector           `yaml:"gatewayRouteSelector,omitempty" json:"gatewayRouteSelector,omitempty"`
	Listeners            []VirtualGatewayListener `yaml:"listeners,omitempty" json:"listeners,omitempty"`
	BackendDefaults      *BackendDefaults         `yaml:"backendDefaults,omitempty" json:"backendDefaults,omitempty"`
	Logging              *Logging                 `yaml:"logging,omitempty" json:"logging,omitempty"`
	MeshRef              *MeshRef                 `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// VirtualGatewayListener is one port of a gateway.
type VirtualGatewayListener struct {
	PortMapping    GatewayPortMapping            `yaml:"portMapping" json:"portMapping" check:"required"`
	HealthCheck    *GatewayHealthCheckPolicy     `yaml:"healthCheck,omitempty" json:"healthCheck,omitempty"`
	TLS            *GatewayListenerTLS           `yaml:"tls,omitempty" json:"tls,omitempty"`
	ConnectionPool *VirtualGatewayConnectionPool `yaml:"connectionPool,omitempty" json:"connectionPool,omitempty"`
}

// GatewayPortMapping is PortMapping without tcp.
type GatewayPortMapping struct {
	Port     uint32 `yaml:"port" json:"port" check:"required min=1 max=65535"`
	Protocol string `yaml:"protocol" json:"protocol" check:"required enum=grpc,http,http2"`
}

// GatewayHealthCheckPolicy is HealthCheckPolicy without tcp; the CRD does not
// require its healthy threshold.
type GatewayHealthCheckPolicy struct {
	HealthyThreshold   int64  `yaml:"healthyThreshold,omitempty" json:"healthyThreshold,omitempty" check:"min=2 max=10"`
	IntervalMillis     int64  `yaml:"intervalMillis" json:"intervalMillis" check:"required min=5000 max=300000"`
	TimeoutMillis      int64  `yaml:"timeoutMillis" json:"timeoutMillis" check:"required min=2000 max=60000"`
	UnhealthyThreshold int64  `yaml:"unhealthyThreshold" json:"unhealthyThreshold" check:"required min=2 max=10"`
	Path               string `yaml:"path,omitempty" json:"path,omitempty" check:"pattern=path"`
	Port               uint32 `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	Protocol           string `yaml:"protocol" json:"protocol" check:"required enum=grpc,http,http2"`
}

// GatewayListenerTLS is ListenerTLS whose trust may be acm, as the CRD has it.
type GatewayListenerTLS struct {
	Mode        string                 `yaml:"mode" json:"mode" check:"required enum=DISABLED,PERMISSIVE,STRICT"`
	Certificate ListenerTLSCertificate `yaml:"certificate" json:"certificate" check:"required"`
	Validation  *TLSValidation         `yaml:"validation,omitempty" json:"validation,omitempty"`
}

// VirtualGatewayConnectionPool has exactly one member, that of the listener's protocol.
type VirtualGatewayConnectionPool struct {
	GRPC  *RequestPool        `yaml:"grpc,omitempty" json:"grpc,omitempty" check:"one"`
	HTTP  *HTTPConnectionPool `yaml:"http,omitempty" json:"http,omitempty" check:"one"`
	HTTP2 *RequestPool        `yaml:"http2,omitempty" json:"http2,omitempty" check:"one"`
}

func (s *VirtualGatewaySpec) applyDefaults() {
	for i := range s.Listeners {
		if l := &s.Listeners[i]; l.HealthCheck != nil && l.HealthCheck.Port == 0 {
			l.HealthCheck.Port = l.PortMapping.Port // as a virtual node's
		}
	}
	if s.BackendDefaults != nil {
		s.BackendDefaults.ClientPolicy.applyDefaults()
	}
}

func (s *VirtualGatewaySpec) names() (*string, *MeshRef) { return &s.AWSName, s.MeshRef }

func (*VirtualGatewaySpec) lacks(*lacking) {}
