package mesh

import "fmt"

// VirtualNodeSpec is the spec of kind VirtualNode.
type VirtualNodeSpec struct {
	// AWSName defaults to name_namespace (AM-names).
	AWSName          string                `yaml:"awsName,omitempty" json:"awsName,omitempty" check:"len=1..255"`
	PodSelector      *LabelSelector        `yaml:"podSelector,omitempty" json:"podSelector,omitempty"`
	Listeners        []VirtualNodeListener `yaml:"listeners,omitempty" json:"listeners,omitempty"`
	ServiceDiscovery *ServiceDiscovery     `yaml:"serviceDiscovery,omitempty" json:"serviceDiscovery,omitempty"`
	// Backends are at most 50 (AM-quotas).
	Backends        []Backend        `yaml:"backends,omitempty" json:"backends,omitempty" check:"items=0..50"`
	BackendGroups   []Reference      `yaml:"backendGroups,omitempty" json:"backendGroups,omitempty"`
	BackendDefaults *BackendDefaults `yaml:"backendDefaults,omitempty" json:"backendDefaults,omitempty"`
	Logging         *Logging         `yaml:"logging,omitempty" json:"logging,omitempty"`
	MeshRef         *MeshRef         `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
}

// The DNS response types: all addresses, or one at a time.
const (
	DNSEndpoints    = "ENDPOINTS"
	DNSLoadBalancer = "LOADBALANCER"
)

// Backend is a service that the node calls.
type Backend struct {
	VirtualService VirtualServiceBackend `yaml:"virtualService" json:"virtualService" check:"required"`
}

// VirtualServiceBackend names the service by reference or by ARN.
type VirtualServiceBackend struct {
	VirtualServiceRef *Reference    `yaml:"virtualServiceRef,omitempty" json:"virtualServiceRef,omitempty" check:"one"`
	VirtualServiceARN string        `yaml:"virtualServiceARN,omitempty" json:"virtualServiceARN,omitempty" check:"one len=1.."`
	ClientPolicy      *ClientPolicy `yaml:"clientPolicy,omitempty" json:"clientPolicy,omitempty"`
}

// File is the path of the access log, "" where there is none.
func (l *Logging) File() string {
	if l == nil || l.AccessLog == nil || l.AccessLog.File == nil {
		return ""
	}
	return l.AccessLog.File.Path
}

// logOf is the logging of what has a proxy.
func logOf(spec any) *Logging {
	switch s := spec.(type) {
	case *VirtualNodeSpec:
		return s.Logging
	case *VirtualGatewaySpec:
		return s.Logging
	}
	return nil
}

// format of the access log; nil for Envoy's own.
func (l *Logging) format() *LoggingFormat {
	if l.File() == "" {
		return nil
	}
	return l.AccessLog.File.Format
}

func (s *VirtualNodeSpec) applyDefaults() {
	for i := range s.Listeners {
		if l := &s.Listeners[i]; l.HealthCheck != nil && l.HealthCheck.Port == 0 {
			l.HealthCheck.Port = l.PortMapping.Port
		}
	}
	if s.ServiceDiscovery != nil && s.ServiceDiscovery.DNS != nil && s.ServiceDiscovery.DNS.ResponseType == "" {
		s.ServiceDiscovery.DNS.ResponseType = DNSLoadBalancer
	}
	if s.BackendDefaults != nil {
		s.BackendDefaults.ClientPolicy.applyDefaults()
	}
	for i := range s.Backends {
		s.Backends[i].VirtualService.ClientPolicy.applyDefaults()
	}
}

func (s *VirtualNodeSpec) names() (*string, **MeshRef) { return &s.AWSName, &s.MeshRef }

func (s *VirtualNodeSpec) check(ru *ruler) {
	// Deviates: App Mesh wants service discovery wherever there is a listener;
	// here an agent may register the endpoints (D19).
	ports := map[uint32]int{}
	for i := range s.Listeners {
		l, path := &s.Listeners[i], fmt.Sprintf("spec.listeners[%d]", i)
		if first, dup := ports[l.PortMapping.Port]; dup {
			ru.fail(path+".portMapping.port", "port %d is that of spec.listeners[%d] already", l.PortMapping.Port, first)
		} else {
			ports[l.PortMapping.Port] = i
		}
		ru.listener(path, l)
	}
	for i := range s.Backends {
		b := &s.Backends[i].VirtualService
		ru.arn(fmt.Sprintf("spec.backends[%d].virtualService.virtualServiceARN", i), b.VirtualServiceARN, arnVirtualService)
	}
}
