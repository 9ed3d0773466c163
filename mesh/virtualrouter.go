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

// VirtualRouterListener is one port that the router's callers may use.
type VirtualRouterListener struct {
	PortMapping PortMapping `yaml:"portMapping" json:"portMapping" check:"required"`
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

// HTTPRoute is a route of HTTP/1.1 or HTTP/2.
type HTTPRoute struct {
	Match       HTTPRouteMatch   `yaml:"match" json:"match" check:"required"`
	Action      RouteAction      `yaml:"action" json:"action" check:"required"`
	RetryPolicy *HTTPRetryPolicy `yaml:"retryPolicy,omitempty" json:"retryPolicy,omitempty"`
	Timeout     *HTTPTimeout     `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// HTTPRouteMatch is which requests a route takes: either prefix or path, and
// all of the others that are given.
type HTTPRouteMatch struct {
	Headers         []HTTPRouteHeader `yaml:"headers,omitempty" json:"headers,omitempty" check:"items=1..10"`
	Method          string            `yaml:"method,omitempty" json:"method,omitempty" check:"enum=CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE"`
	Path            *HTTPPathMatch    `yaml:"path,omitempty" json:"path,omitempty"`
	Port            uint32            `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	Prefix          string            `yaml:"prefix,omitempty" json:"prefix,omitempty" check:"pattern=path"`
	QueryParameters []QueryParameter  `yaml:"queryParameters,omitempty" json:"queryParameters,omitempty" check:"items=1..10"`
	Scheme          string            `yaml:"scheme,omitempty" json:"scheme,omitempty" check:"enum=http,https"`
}

// HTTPRouteHeader is one condition on a header; without Match: it is present.
type HTTPRouteHeader struct {
	Invert *bool              `yaml:"invert,omitempty" json:"invert,omitempty"`
	Match  *HeaderMatchMethod `yaml:"match,omitempty" json:"match,omitempty"`
	Name   string             `yaml:"name" json:"name" check:"required len=1..50 pattern=token"`
}

// HeaderMatchMethod has exactly one member.
type HeaderMatchMethod struct {
	Exact  string      `yaml:"exact,omitempty" json:"exact,omitempty" check:"one len=1..255"`
	Prefix string      `yaml:"prefix,omitempty" json:"prefix,omitempty" check:"one len=1..255"`
	Range  *MatchRange `yaml:"range,omitempty" json:"range,omitempty" check:"one"`
	Regex  string      `yaml:"regex,omitempty" json:"regex,omitempty" check:"one len=1..255"`
	Suffix string      `yaml:"suffix,omitempty" json:"suffix,omitempty" check:"one len=1..255"`
}

// MatchRange is a range of integers, End exclusive.
type MatchRange struct {
	Start int64 `yaml:"start" json:"start" check:"required"`
	End   int64 `yaml:"end" json:"end" check:"required"`
}

// HTTPPathMatch has exactly one member.
type HTTPPathMatch struct {
	Exact string `yaml:"exact,omitempty" json:"exact,omitempty" check:"one len=1..255 pattern=path"`
	Regex string `yaml:"regex,omitempty" json:"regex,omitempty" check:"one len=1..255"`
}

// QueryParameter is one condition on a query parameter.
type QueryParameter struct {
	Match *QueryParameterMatch `yaml:"match,omitempty" json:"match,omitempty"`
	Name  string               `yaml:"name" json:"name" check:"required len=1.."`
}

// QueryParameterMatch compares a query parameter.
type QueryParameterMatch struct {
	Exact string `yaml:"exact,omitempty" json:"exact,omitempty"`
}

// RouteAction is where a route's requests go.
type RouteAction struct {
	WeightedTargets []WeightedTargetSpec `yaml:"weightedTargets" json:"weightedTargets" check:"required items=1..10"`
}

// WeightedTargetSpec is one target; its share is its weight of the sum.
type WeightedTargetSpec struct {
	VirtualNodeRef *Reference `yaml:"virtualNodeRef,omitempty" json:"virtualNodeRef,omitempty" check:"one"`
	VirtualNodeARN string     `yaml:"virtualNodeARN,omitempty" json:"virtualNodeARN,omitempty" check:"one len=1.."`
	Weight         int64      `yaml:"weight" json:"weight" check:"required min=0 max=100"`
	Port           uint32     `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
}

// HTTPRetryPolicy has at least one list of events.
type HTTPRetryPolicy struct {
	HTTPRetryEvents []string `yaml:"httpRetryEvents,omitempty" json:"httpRetryEvents,omitempty" check:"items=1..25 each.enum=server-error,gateway-error,client-error,stream-error"`
	TCPRetryEvents  []string `yaml:"tcpRetryEvents,omitempty" json:"tcpRetryEvents,omitempty" check:"items=1..1 each.enum=connection-error"`
	MaxRetries      int64    `yaml:"maxRetries" json:"maxRetries" check:"required min=0"`
	PerRetryTimeout Duration `yaml:"perRetryTimeout" json:"perRetryTimeout" check:"required"`
}

// GRPCRoute is a route of gRPC.
type GRPCRoute struct {
	Match       GRPCRouteMatch   `yaml:"match" json:"match" check:"required"`
	Action      RouteAction      `yaml:"action" json:"action" check:"required"`
	RetryPolicy *GRPCRetryPolicy `yaml:"retryPolicy,omitempty" json:"retryPolicy,omitempty"`
	Timeout     *HTTPTimeout     `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// GRPCRouteMatch is which calls a route takes; a method needs its service.
type GRPCRouteMatch struct {
	Metadata    []HTTPRouteHeader `yaml:"metadata,omitempty" json:"metadata,omitempty" check:"items=1..10"`
	MethodName  string            `yaml:"methodName,omitempty" json:"methodName,omitempty" check:"len=1..50"`
	Port        uint32            `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
	ServiceName string            `yaml:"serviceName,omitempty" json:"serviceName,omitempty"`
}

// GRPCRetryPolicy has at least one list of events.
type GRPCRetryPolicy struct {
	GRPCRetryEvents []string `yaml:"grpcRetryEvents,omitempty" json:"grpcRetryEvents,omitempty" check:"items=1..5 each.enum=cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"`
	HTTPRetryEvents []string `yaml:"httpRetryEvents,omitempty" json:"httpRetryEvents,omitempty" check:"items=1..25 each.enum=server-error,gateway-error,client-error,stream-error"`
	TCPRetryEvents  []string `yaml:"tcpRetryEvents,omitempty" json:"tcpRetryEvents,omitempty" check:"items=1..1 each.enum=connection-error"`
	MaxRetries      int64    `yaml:"maxRetries" json:"maxRetries" check:"required min=0"`
	PerRetryTimeout Duration `yaml:"perRetryTimeout" json:"perRetryTimeout" check:"required"`
}

// TCPRoute is a route of bytes.
type TCPRoute struct {
	Match   *TCPRouteMatch `yaml:"match,omitempty" json:"match,omitempty"`
	Action  RouteAction    `yaml:"action" json:"action" check:"required"`
	Timeout *TCPTimeout    `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// TCPRouteMatch is which connections a route takes.
type TCPRouteMatch struct {
	Port uint32 `yaml:"port,omitempty" json:"port,omitempty" check:"min=1 max=65535"`
}

func (s *VirtualRouterSpec) names() (*string, *MeshRef) { return &s.AWSName, s.MeshRef }
