package mesh

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"signet.example/internal/ordered"
	"signet.example/proxy"
)

// Graph is a set of meshes with every reference resolved, to the App Mesh name of
// what is referred to: that is in the graph, and by its name the graph finds it.
// So an object is the same value in a graph in which only others have changed.
type Graph struct {
	meshes        ordered.Map[ordered.String, *meshInfo]
	nodes         ordered.Map[Name, *VirtualNode]
	routers       ordered.Map[Name, *VirtualRouter]
	services      ordered.Map[Name, *VirtualService]
	gatewayRoutes ordered.Map[Name, *GatewayRoute]
	// addressed are the services of meshes that give them addresses, by these.
	addressed ordered.Map[serviceAddress, Name]
	// namesakes are the nodes that are found by DNS under the name of a service, by that name;
	// the service need not be there.
	namesakes ordered.Map[Name, ordered.Map[Name, struct{}]]

	// What a change is resolved by.
	objects   ordered.Map[objectKey, *Resource]              // by Kubernetes' names, for references
	named     ordered.Map[Name, *Resource]                   // by App Mesh's, for ARNs and duplicates
	referrers ordered.Map[Name, ordered.Map[Name, struct{}]] // who refers to what
	refers    ordered.Map[Name, *refers]                     // what each refers to
}

// meshInfo is what all objects of a mesh have in common.
type meshInfo struct {
	spec     *MeshSpec
	resource *Resource
	unsafe   map[string]bool
}

// refers is what an object refers to. Immutable.
type refers struct{ to []Name }

// Name is App Mesh's name of an object of any of its kinds. That of a service is in
// lower case: hosts are compared without case, as clients and Envoy do. A virtual node
// or gateway is named by its [proxy.Ref] wherever nothing else can stand.
type Name struct {
	Kind Kind
	Mesh string
	Name string
}

// NameOf makes the Name of an object as its graph has it.
func NameOf(k Kind, mesh, name string) Name {
	if k == KindVirtualService {
		name = strings.ToLower(name)
	}
	return Name{k, mesh, name}
}

// NodeName is the Name of a virtual node or gateway.
func NodeName(r proxy.Ref) Name {
	if r.Gateway() {
		return NameOf(KindVirtualGateway, r.Mesh, r.Name)
	}
	return NameOf(KindVirtualNode, r.Mesh, r.Name)
}

// Proxied is what a proxy runs for that the Name is of: false for what no proxy does.
func (n Name) Proxied() (proxy.Ref, bool) {
	r := proxy.For(n.Mesh, n.Name, n.Kind == KindVirtualGateway)
	return r, n == NodeName(r)
}

// Compare implements ordered.Key.
func (n Name) Compare(o Name) int {
	return cmp.Or(strings.Compare(n.Mesh, o.Mesh), strings.Compare(string(n.Kind), string(o.Kind)), strings.Compare(n.Name, o.Name))
}

// objectKey is Kubernetes' name of an object.
type objectKey struct {
	kind                  Kind
	mesh, namespace, name string
}

// Compare implements ordered.Key.
func (k objectKey) Compare(o objectKey) int {
	return cmp.Or(strings.Compare(k.mesh, o.mesh), strings.Compare(string(k.kind), string(o.kind)),
		strings.Compare(k.namespace, o.namespace), strings.Compare(k.name, o.name))
}

// VirtualNode is what a proxy runs for: one workload behind it, or, where Gateway is
// set, a virtual gateway, behind which there is none.
type VirtualNode struct {
	proxy.Ref
	Spec      *VirtualNodeSpec // nil of a gateway
	Listeners []Listener
	// Backends are the services that it declares to call, or to which a gateway's routes
	// lead, sorted by name.
	Backends []Callee
	// Gateway is what a virtual gateway does with requests; nil of a virtual node.
	Gateway *Gateway
	// DNS is its discovery by name; nil where it has none, so that only
	// registered endpoints are known.
	DNS *DNSServiceDiscovery
	// AccessLog is a path on the proxy's file system; "" for none.
	AccessLog string
	LogFormat *LoggingFormat // nil for Envoy's own
	// Observed: what the policy denies here is let through and recorded.
	Observed bool
}

// DiscoveredAs is the name by which a node is found: what App Mesh held a server's
// certificate to where a client policy names nobody (AM-clientpolicy). It is "" where there is none.
func (n *VirtualNode) DiscoveredAs() string {
	switch {
	case n.DNS != nil:
		return strings.TrimSuffix(n.DNS.Hostname, ".")
	case n.Spec != nil && n.Spec.ServiceDiscovery != nil && n.Spec.ServiceDiscovery.AWSCloudMap != nil:
		m := n.Spec.ServiceDiscovery.AWSCloudMap
		return m.ServiceName + "." + m.NamespaceName
	}
	return ""
}

// Namesake is the service whose name is the one by which a node is found by DNS; it need not be
// there. ok is false where a node is found otherwise.
func (n *VirtualNode) Namesake() (service Name, ok bool) {
	if n == nil || n.DNS == nil {
		return Name{}, false
	}
	return nameInDNS(n.Mesh, n.DNS.Hostname), true
}

// nameInDNS is the service of a name, which is the same with a dot at its end.
func nameInDNS(mesh, name string) Name {
	return NameOf(KindVirtualService, mesh, strings.TrimSuffix(name, "."))
}

// Callee is a service that a node declares to call, and how.
type Callee struct {
	Service Name
	// TLS is what the node was told to do; nil means that the connection is managed:
	// the target's own SPIFFE ID and nothing else.
	TLS *ClientTLS
}

// Listener is one inbound port with the documented defaults filled in.
type Listener struct {
	Port     uint32
	Protocol string
	Timeout  Timeout
	Probe    *Probe // nil: clients do not probe
	Pool     Pool
	Outliers *Outliers // nil: clients eject nothing
	TLS      *TLS      // nil: managed (D17)
	// Application is how the proxy knows the application by TLS; nil: it speaks plaintext.
	Application *Application
	// Breaker bounds what each caller's proxy has under way here.
	Breaker Breaker
	// Ingress are callers without a certificate that are known by where they are.
	Ingress []Ingress
	// ProxyProtocol: connections are those of Ingress alone, and begin with that header.
	ProxyProtocol bool
}

// Application is how the application behind a listener is known by TLS.
type Application struct {
	Trust       string // as ClientTLS.Trust
	Names       []string
	SNI         string
	PresentSVID bool
}

// Breaker is a CircuitBreaker; 0 means no bound.
type Breaker struct {
	Connections, Pending, Requests, Retries uint32
	HostConnections, Pools                  uint32
	BudgetPercent, BudgetLeast              uint32 // 0 percent: no budget
}

// Timeout bounds a request and a silent stream; 0 means no bound.
type Timeout struct {
	PerRequest time.Duration
	Idle       time.Duration
}

// Pool is how much of the application a proxy takes up at once; 0 means no bound.
type Pool struct {
	Connections, Pending, Requests uint32
}

// Outliers is when clients leave an endpoint alone that answers with errors.
type Outliers struct {
	Errors         uint32 // in succession
	Interval, Base time.Duration
	Percent        uint32 // of all endpoints, at most
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
	// Certificate is the SPIFFE ID to present, or the name of [proxy.TLSFiles]; "" for the
	// node's own ID.
	Certificate string
	// ClientTrust is the trust domain ID ("spiffe://td") that clients'
	// certificates are validated against, or the name of [proxy.TLSFiles]; "" for the
	// mesh's own.
	ClientTrust string
	// Clients are the only names accepted, SPIFFE IDs unless the trust is in a file; nil
	// accepts any of the trust domain, or whom the file's authorities vouch for.
	Clients []string
	// AnyClient: no certificate is asked for, of a gateway's callers alone.
	AnyClient bool
}

// AnyClient reports whether no certificate is asked of callers by TLS: of a gateway's
// alone.
func (l Listener) AnyClient() bool { return l.TLS != nil && l.TLS.AnyClient }

// ForeignClients reports whether callers by TLS are those whom authorities of a file vouch
// for. None of them has an identity of the mesh (docs/decisions/059).
func (l Listener) ForeignClients() bool {
	return l.TLS != nil && ofFiles(l.TLS.ClientTrust)
}

// ClientTLS is what a node was told to do when it calls a backend.
type ClientTLS struct {
	Certificate string // as TLS.Certificate
	Trust       string // as TLS.ClientTrust
	// Servers are the only names accepted, SPIFFE IDs unless the trust is in a file; nil
	// accepts each target's own: its ID, or the name by which it is found.
	Servers []string
	// Enforce demands TLS whatever the target's spec says. Without it a target that is
	// called by TLS is verified all the same.
	Enforce bool
	// Ports are the only ports of targets that all this is about; nil means each.
	Ports []uint32
}

// On is what holds for calls to a port; nil if nothing.
func (t *ClientTLS) On(port uint32) *ClientTLS {
	if t == nil || len(t.Ports) > 0 && !slices.Contains(t.Ports, port) {
		return nil
	}
	return t
}

// VirtualService is a name that callers use, and what answers: a node, a
// router, or nothing.
type VirtualService struct {
	Mesh, Name string    // as written, for people and as the host
	Node       proxy.Ref // zero where no node answers by itself
	Router     Name      // zero where no router does
}

// VirtualRouter shares requests out to nodes.
type VirtualRouter struct {
	Mesh, Name string
	Spec       *VirtualRouterSpec
	Ports      []uint32 // its listeners' that speak HTTP, in the order of the spec
	TCPPorts   []uint32 // those of the others
	Routes     []Route  // in the order in which they are tried
}

// Route is one rule of a router.
type Route struct {
	Name     string
	Priority *int64
	TCP      bool // of connections; of its match there is a port at most
	Match    Match
	Targets  []WeightedTarget
	Timeout  Timeout
	Retry    *Retry // nil: the documented default of App Mesh
}

// Match is which requests a route takes: Prefix, Path (exact) or PathRegex (RE2, of a
// whole path), and all of the others that are not empty.
type Match struct {
	Prefix, Path, PathRegex string
	Method, Scheme          string
	Query                   []QueryMatch
	Headers                 []HeaderMatch
	Port                    uint32 // of the router's listener; 0 for each
	GRPC                    bool   // nothing but calls of gRPC
}

// QueryMatch is one condition on the query: a parameter of the name with this value,
// as it is written, or with any where Present.
type QueryMatch struct {
	Name, Exact string
	Present     bool
}

// And is what both take, except for their paths; false if nothing is.
func (m Match) And(o Match) (Match, bool) {
	if m.Method != "" && o.Method != "" && m.Method != o.Method || m.Scheme != "" && o.Scheme != "" && m.Scheme != o.Scheme {
		return Match{}, false
	}
	return Match{
		Method: cmp.Or(m.Method, o.Method), Scheme: cmp.Or(m.Scheme, o.Scheme),
		Query: slices.Concat(m.Query, o.Query), Headers: slices.Concat(m.Headers, o.Headers),
		GRPC: m.GRPC || o.GRPC,
	}, true
}

// HeaderMatch is one condition: Exact, Prefix, Suffix, Regex (RE2, of a whole value)
// or Range where not empty, else that the header is present. Invert turns it round.
type HeaderMatch struct {
	Name                         string
	Exact, Prefix, Suffix, Regex string
	Range                        *MatchRange
	Present                      bool
	Invert                       bool
}

// WeightedTarget is one node, its share, and the port there.
type WeightedTarget struct {
	Node   proxy.Ref
	Weight uint32
	Port   uint32 // 0 where the node has no listener
}

// Retry is when and how often a failed request is sent again. The events keep
// App Mesh's names.
type Retry struct {
	MaxRetries uint32
	PerTry     time.Duration
	HTTP, TCP  []string
	GRPC       []string
}

// The protocols of listeners.
const (
	ProtocolHTTP  = "http"
	ProtocolHTTP2 = "http2"
	ProtocolGRPC  = "grpc"
	ProtocolTCP   = "tcp"
)

// HealthCheck is one path that clients' proxies ask at a listener, which authorization
// must therefore let them (D22).
type HealthCheck struct {
	Node         proxy.Ref
	Method, Path string
	Port         uint32 // of the listener that declares it
	// Callers are the nodes that declare a backend that can reach Node.
	Callers []*VirtualNode
	// Ingress are those of the listener, by name, whose load balancers ask it, too.
	Ingress []string
}
