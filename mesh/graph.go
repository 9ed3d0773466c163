package mesh

import "time"

// Graph is a set of meshes with every reference resolved.
type Graph struct {
	meshes map[string]*meshGraph
}

type meshGraph struct {
	spec     *MeshSpec
	unsafe   map[string]bool
	nodes    map[string]*VirtualNode
	services map[string]*VirtualService
	routers  map[string]*VirtualRouter
}

// VirtualNode is one workload behind a proxy.
type VirtualNode struct {
	Mesh, Name string
	Spec       *VirtualNodeSpec
	Listeners  []Listener
	// Backends are the services that it declares to call, sorted by name.
	Backends []*VirtualService
	// DNS is its discovery by name; nil where it has none, so that only
	// registered endpoints are known.
	DNS *DNSServiceDiscovery
	// AccessLog is a path on the proxy's file system; "" for none.
	AccessLog string

	clientTLS map[*VirtualService]*ClientTLS
}

// Listener is one inbound port with the documented defaults filled in.
type Listener struct {
	Port     uint32
	Protocol string
	Timeout  Timeout
	Probe    *Probe // nil: clients do not probe
	TLS      *TLS   // nil: managed (DESIGN decision 17)
}

// Timeout bounds a request and a silent stream; 0 means no bound.
type Timeout struct {
	PerRequest time.Duration
	Idle       time.Duration
}

// Probe is how clients check one endpoint of a listener.
type Probe struct {
	Protocol           string
	Path               string
	Port               uint32
	Interval, Timeout  time.Duration
	Healthy, Unhealthy uint32
}

// TLS is what a listener was told to do about certificates.
type TLS struct {
	Mode string // TLSDisabled, TLSPermissive, TLSStrict
	// Certificate is the SPIFFE ID to present; "" for the node's own.
	Certificate string
	// ClientTrust is the trust domain ID ("spiffe://td") that clients'
	// certificates are validated against; "" for the mesh's own.
	ClientTrust string
	// Clients are the only SPIFFE IDs accepted; nil accepts any of the trust domain.
	Clients []string
}

// ClientTLS is what a node was told to do when it calls a backend.
type ClientTLS struct {
	Certificate string // as TLS.Certificate
	Trust       string // as TLS.ClientTrust
	// Servers are the only SPIFFE IDs accepted; nil accepts each target's own.
	Servers []string
}

// VirtualService is a name that callers use, and what answers: a node, a
// router, or nothing.
type VirtualService struct {
	Mesh, Name string
	Node       *VirtualNode
	Router     *VirtualRouter
}

// VirtualRouter shares requests out to nodes.
type VirtualRouter struct {
	Mesh, Name string
	Spec       *VirtualRouterSpec
	Ports      []uint32 // its listeners', in the order of the spec
	Routes     []Route  // in the order in which they are tried
}

// Route is one rule of a router.
type Route struct {
	Name     string
	Priority *int64
	Match    Match
	Targets  []WeightedTarget
	Timeout  Timeout
	Retry    *Retry // nil: the documented default of App Mesh
}

// Match is which requests a route takes: Prefix or Path (exact), and all Headers.
type Match struct {
	Prefix, Path string
	Headers      []HeaderMatch
}

// HeaderMatch is one condition: Exact, Prefix or Suffix where not empty, else
// that the header is present. Invert turns it round.
type HeaderMatch struct {
	Name                  string
	Exact, Prefix, Suffix string
	Present               bool
	Invert                bool
}

// WeightedTarget is one node, its share, and the port there.
type WeightedTarget struct {
	Node   *VirtualNode
	Weight uint32
	Port   uint32 // 0 where the node has no listener
}

// Retry is when and how often a failed request is sent again. The events keep
// App Mesh's names.
type Retry struct {
	MaxRetries uint32
	PerTry     time.Duration
	HTTP, TCP  []string
}

// HealthCheck is one path that clients' proxies ask, which authorization
// must therefore let them (DESIGN decision 22).
type HealthCheck struct {
	Mesh, Node   string
	Method, Path string
	// Callers are the nodes that declare a backend that can reach Node.
	Callers []*VirtualNode
}
