package mesh

import "fmt"

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

func (s *VirtualGatewaySpec) names() (*string, **MeshRef) { return &s.AWSName, &s.MeshRef }

func (s *VirtualGatewaySpec) check(ru *ruler) {
	for i := range s.Listeners {
		l, path := &s.Listeners[i], fmt.Sprintf("spec.listeners[%d]", i)
		if p := l.ConnectionPool; p != nil {
			ru.sameProtocol(path+".connectionPool", l.PortMapping.Protocol, protocolOf(p.GRPC != nil, p.HTTP != nil, p.HTTP2 != nil, false))
		}
		if h := l.HealthCheck; h != nil {
			ru.healthCheckPort(path, h.Port, l.PortMapping.Port)
		}
	}
}
