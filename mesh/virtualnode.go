package mesh

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

// VirtualNodeListener is one inbound port of a virtual node.
type VirtualNodeListener struct {
	PortMapping      PortMapping                `yaml:"portMapping" json:"portMapping" check:"required"`
	HealthCheck      *HealthCheckPolicy         `yaml:"healthCheck,omitempty" json:"healthCheck,omitempty"`
	Timeout          *ListenerTimeout           `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	TLS              *ListenerTLS               `yaml:"tls,omitempty" json:"tls,omitempty"`
	ConnectionPool   *VirtualNodeConnectionPool `yaml:"connectionPool,omitempty" json:"connectionPool,omitempty"`
	OutlierDetection *OutlierDetection          `yaml:"outlierDetection,omitempty" json:"outlierDetection,omitempty"`
}

// HealthCheckPolicy is how clients probe each endpoint of a listener.
type HealthCheckPolicy struct {
	HealthyThreshold   int64 `yaml:"healthyThreshold" json:"healthyThreshold" check:"required min=2 max=10"`
	IntervalMillis     int64 `yaml:"intervalMillis" json:"intervalMillis" check:"required min=5000 max=300000"`
	TimeoutMillis      int64 `yaml:"timeoutMillis" json:"timeoutMillis" check:"required min=2000 max=60000"`
	UnhealthyThreshold int64 `yaml:"unhealthyThreshold" json:"unhealthyThreshold" check:"required min=2 max=10"`
	// Path is used by http and http2 only.
	Path string `yaml:"path,omitempty" json:"path,omitempty" check:"pattern=path"`
	// Port defaults to the listener's (AM-healthcheck).
	Port     uint32 `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	Protocol string `yaml:"protocol" json:"protocol" check:"required enum=grpc,http,http2,tcp offer=http"`
}

// ListenerTimeout has exactly one member, that of the listener's protocol.
type ListenerTimeout struct {
	GRPC  *HTTPTimeout `yaml:"grpc,omitempty" json:"grpc,omitempty" check:"one"`
	HTTP  *HTTPTimeout `yaml:"http,omitempty" json:"http,omitempty" check:"one"`
	HTTP2 *HTTPTimeout `yaml:"http2,omitempty" json:"http2,omitempty" check:"one"`
	TCP   *TCPTimeout  `yaml:"tcp,omitempty" json:"tcp,omitempty" check:"one"`
}

// HTTPTimeout bounds a request and a silent stream; gRPC's has the same form.
type HTTPTimeout struct {
	Idle       *Duration `yaml:"idle,omitempty" json:"idle,omitempty"`
	PerRequest *Duration `yaml:"perRequest,omitempty" json:"perRequest,omitempty"`
}

// TCPTimeout bounds a silent connection.
type TCPTimeout struct {
	Idle *Duration `yaml:"idle,omitempty" json:"idle,omitempty"`
}

// VirtualNodeConnectionPool has exactly one member, that of the listener's protocol.
type VirtualNodeConnectionPool struct {
	GRPC  *RequestPool        `yaml:"grpc,omitempty" json:"grpc,omitempty" check:"one"`
	HTTP  *HTTPConnectionPool `yaml:"http,omitempty" json:"http,omitempty" check:"one"`
	HTTP2 *RequestPool        `yaml:"http2,omitempty" json:"http2,omitempty" check:"one"`
	TCP   *TCPConnectionPool  `yaml:"tcp,omitempty" json:"tcp,omitempty" check:"one"`
}

// RequestPool bounds the requests of a multiplexed protocol.
type RequestPool struct {
	MaxRequests int64 `yaml:"maxRequests" json:"maxRequests" check:"required min=1"`
}

// HTTPConnectionPool bounds HTTP/1.1.
type HTTPConnectionPool struct {
	MaxConnections     int64 `yaml:"maxConnections" json:"maxConnections" check:"required min=1"`
	MaxPendingRequests int64 `yaml:"maxPendingRequests,omitempty" json:"maxPendingRequests,omitempty" check:"min=1"`
}

// TCPConnectionPool bounds connections.
type TCPConnectionPool struct {
	MaxConnections int64 `yaml:"maxConnections" json:"maxConnections" check:"required min=1"`
}

// OutlierDetection ejects endpoints that fail.
type OutlierDetection struct {
	MaxServerErrors      int64    `yaml:"maxServerErrors" json:"maxServerErrors" check:"required min=1"`
	Interval             Duration `yaml:"interval" json:"interval" check:"required"`
	BaseEjectionDuration Duration `yaml:"baseEjectionDuration" json:"baseEjectionDuration" check:"required"`
	MaxEjectionPercent   int64    `yaml:"maxEjectionPercent" json:"maxEjectionPercent" check:"required min=0 max=100"`
}

// ServiceDiscovery has exactly one member.
type ServiceDiscovery struct {
	AWSCloudMap *AWSCloudMapServiceDiscovery `yaml:"awsCloudMap,omitempty" json:"awsCloudMap,omitempty" check:"one"`
	DNS         *DNSServiceDiscovery         `yaml:"dns,omitempty" json:"dns,omitempty" check:"one"`
}

// AWSCloudMapServiceDiscovery finds endpoints in AWS Cloud Map.
type AWSCloudMapServiceDiscovery struct {
	NamespaceName string                         `yaml:"namespaceName" json:"namespaceName" check:"required len=1..1024"`
	ServiceName   string                         `yaml:"serviceName" json:"serviceName" check:"required len=1..1024"`
	Attributes    []AWSCloudMapInstanceAttribute `yaml:"attributes,omitempty" json:"attributes,omitempty"`
}

// AWSCloudMapInstanceAttribute selects instances.
type AWSCloudMapInstanceAttribute struct {
	Key   string `yaml:"key" json:"key" check:"required len=1..255 pattern=cloudMapKey"`
	Value string `yaml:"value" json:"value" check:"required len=1..1024 pattern=cloudMapValue"`
}

// DNSServiceDiscovery finds endpoints by name.
type DNSServiceDiscovery struct {
	Hostname string `yaml:"hostname" json:"hostname" check:"required len=1..253"`
	// ResponseType defaults to LOADBALANCER (AM-dns).
	ResponseType string `yaml:"responseType,omitempty" json:"responseType,omitempty" check:"enum=ENDPOINTS,LOADBALANCER"`
}

// The DNS response types: all addresses, or one at a time.
const (
	DNSEndpoints    = "ENDPOINTS"
	DNSLoadBalancer = "LOADBALANCER"
)

// BackendDefaults hold for each backend that has no client policy of its own.
type BackendDefaults struct {
	ClientPolicy *ClientPolicy `yaml:"clientPolicy,omitempty" json:"clientPolicy,omitempty"`
}

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

// Logging is where the proxy logs.
type Logging struct {
	AccessLog *AccessLog `yaml:"accessLog,omitempty" json:"accessLog,omitempty"`
}

// AccessLog has exactly one member, and only one exists.
type AccessLog struct {
	File *FileAccessLog `yaml:"file,omitempty" json:"file,omitempty" check:"one"`
}

// FileAccessLog is a path, usually /dev/stdout.
type FileAccessLog struct {
	Format *LoggingFormat `yaml:"format,omitempty" json:"format,omitempty"`
	Path   string         `yaml:"path" json:"path" check:"required len=1..255"`
}

// LoggingFormat has exactly one member.
type LoggingFormat struct {
	JSON []JSONFormatRef `yaml:"json,omitempty" json:"json,omitempty" check:"one items=1.."`
	Text string          `yaml:"text,omitempty" json:"text,omitempty" check:"one len=1..1000"`
}

// JSONFormatRef is one member of a JSON access log.
type JSONFormatRef struct {
	Key   string `yaml:"key" json:"key" check:"required len=1..100"`
	Value string `yaml:"value" json:"value" check:"required len=1..100"`
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

func (s *VirtualNodeSpec) names() (*string, *MeshRef) { return &s.AWSName, s.MeshRef }
