package mesh

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// VirtualNodeOptionsSpec is the spec of kind VirtualNodeOptions: what App Mesh's virtual
// nodes have no field for. An object of it has the name and namespace of the virtual node
// that it is about.
type VirtualNodeOptionsSpec struct {
	MeshRef *MeshRef `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
	// Authorization is the mesh's where it is left out.
	Authorization string            `yaml:"authorization,omitempty" json:"authorization,omitempty" check:"enum=enforce,observe"`
	Listeners     []ListenerOptions `yaml:"listeners,omitempty" json:"listeners,omitempty" check:"items=1.."`
}

// ListenerOptions are those of one listener.
type ListenerOptions struct {
	Port uint32 `yaml:"port" json:"port" check:"required min=1 max=65535"`
	// ApplicationTLS has the node's proxy speak TLS to its application.
	ApplicationTLS *ApplicationTLS `yaml:"applicationTLS,omitempty" json:"applicationTLS,omitempty"`
	// CircuitBreaker is that of each proxy that calls the listener.
	CircuitBreaker *CircuitBreaker `yaml:"circuitBreaker,omitempty" json:"circuitBreaker,omitempty"`
	// Ingress are the load balancers before the listener, and others that call in plaintext.
	Ingress []ListenerIngress `yaml:"ingress,omitempty" json:"ingress,omitempty" check:"items=1..16"`
	// ProxyProtocol is refused: it is for gateways.
	ProxyProtocol bool `yaml:"proxyProtocol,omitempty" json:"proxyProtocol,omitempty"`
}

// ApplicationTLS is how a proxy knows the application behind it.
type ApplicationTLS struct {
	Trust ListenerTLSTrust `yaml:"trust" json:"trust" check:"required"`
	// SubjectAlternativeNames of which the application's certificate has one.
	SubjectAlternativeNames SubjectAlternativeNames `yaml:"subjectAlternativeNames" json:"subjectAlternativeNames" check:"required"`
	// SNI is the name that it is asked for by; none by default.
	SNI string `yaml:"sni,omitempty" json:"sni,omitempty" check:"len=1..253 pattern=host"`
	// PresentSVID has the proxy show the node's SVID where the application asks for a
	// certificate.
	PresentSVID bool `yaml:"presentSVID,omitempty" json:"presentSVID,omitempty"`
}

// CircuitBreaker bounds what one proxy has under way at a listener of the node, over all of
// its endpoints unless it says otherwise. What is left out has no bound.
type CircuitBreaker struct {
	MaxConnections        int64        `yaml:"maxConnections,omitempty" json:"maxConnections,omitempty" check:"min=1 max=2147483647"`
	MaxPendingRequests    int64        `yaml:"maxPendingRequests,omitempty" json:"maxPendingRequests,omitempty" check:"min=1 max=2147483647"`
	MaxRequests           int64        `yaml:"maxRequests,omitempty" json:"maxRequests,omitempty" check:"min=1 max=2147483647"`
	MaxConnectionsPerHost int64        `yaml:"maxConnectionsPerHost,omitempty" json:"maxConnectionsPerHost,omitempty" check:"min=1 max=2147483647"`
	MaxConnectionPools    int64        `yaml:"maxConnectionPools,omitempty" json:"maxConnectionPools,omitempty" check:"min=1 max=2147483647"`
	MaxRetries            int64        `yaml:"maxRetries,omitempty" json:"maxRetries,omitempty" check:"min=1 max=2147483647"`
	RetryBudget           *RetryBudget `yaml:"retryBudget,omitempty" json:"retryBudget,omitempty"`
}

// RetryBudget is how many retries may be under way: a share of the requests that are, and
// at least so many.
type RetryBudget struct {
	Percent    int64 `yaml:"percent" json:"percent" check:"required min=1 max=100"`
	MinRetries int64 `yaml:"minRetries,omitempty" json:"minRetries,omitempty" check:"min=1 max=2147483647"`
}

// names: what it is about has App Mesh's name.
func (s *VirtualNodeOptionsSpec) names() (*string, **MeshRef) { return nil, &s.MeshRef }

// sameToOthers: its node takes all of it.
func (s *VirtualNodeOptionsSpec) sameToOthers(old any) bool { return reflect.DeepEqual(s, old) }

func (s *VirtualNodeOptionsSpec) check(ru *ruler) {
	if len(s.Listeners) == 0 && s.Authorization == "" {
		ru.fail("spec", "says nothing of the node: want authorization, listeners or both")
	}
	ports := map[uint32]int{}
	for i, l := range s.Listeners {
		path := fmt.Sprintf("spec.listeners[%d]", i)
		ru.onePort(path, l.Port, ports, i)
		if l.ApplicationTLS == nil && l.CircuitBreaker == nil && len(l.Ingress) == 0 {
			ru.fail(path, "says nothing of the listener: want applicationTLS, circuitBreaker, ingress or several of them")
		}
		ru.ingress(path+".ingress", l.Ingress)
		if l.ProxyProtocol {
			ru.fail(path+".proxyProtocol", "is for gateways: at such a port each connection begins with a header that proxies of the mesh do not send, so that no service could call this node, and who may leave it out could as well name any address in it; put a virtual gateway behind the load balancer, or switch it off at its target group, whose connections are known by `ingress` all the same")
		}
		if c := l.CircuitBreaker; c != nil {
			switch {
			case *c == CircuitBreaker{}:
				ru.fail(path+".circuitBreaker", "has no bound")
			case c.MaxRetries > 0 && c.RetryBudget != nil:
				ru.fail(path+".circuitBreaker.maxRetries", "is given beside retryBudget: leave one of them out")
			}
		}
	}
}

// onePort wants the options of a listener in one place.
func (ru *ruler) onePort(path string, port uint32, before map[uint32]int, i int) {
	if first, dup := before[port]; dup {
		ru.fail(path+".port", "port %d is that of spec.listeners[%d] already", port, first)
	}
	before[port] = i
}

func (s *VirtualNodeOptionsSpec) lacks(u *lacking) {
	for i := range s.Listeners {
		t := s.Listeners[i].ApplicationTLS
		if t == nil {
			continue
		}
		path := fmt.Sprintf("spec.listeners[%d].applicationTLS", i)
		u.secretTrust(path+".trust.sds.secretName", t.Trust.SDS)
		names := path + ".subjectAlternativeNames.match.exact"
		if t.Trust.File != nil {
			u.file(path+".trust.file.certificateChain", t.Trust.File.CertificateChain)
		} else {
			u.names(names, &t.SubjectAlternativeNames)
		}
	}
}

// VirtualGatewayOptionsSpec is the spec of kind VirtualGatewayOptions, which is to a virtual
// gateway what VirtualNodeOptions are to a virtual node.
type VirtualGatewayOptionsSpec struct {
	MeshRef *MeshRef `yaml:"meshRef,omitempty" json:"meshRef,omitempty"`
	// Authorization is the mesh's where it is left out.
	Authorization string                   `yaml:"authorization,omitempty" json:"authorization,omitempty" check:"enum=enforce,observe"`
	Listeners     []GatewayListenerOptions `yaml:"listeners,omitempty" json:"listeners,omitempty" check:"items=1.."`
}

// GatewayListenerOptions are those of one listener.
type GatewayListenerOptions struct {
	Port    uint32            `yaml:"port" json:"port" check:"required min=1 max=65535"`
	Ingress []ListenerIngress `yaml:"ingress" json:"ingress" check:"required items=1..16"`
	// ProxyProtocol has each connection begin with the header of the PROXY protocol, by which a
	// load balancer of connections tells who its client is. Then none is taken from elsewhere.
	ProxyProtocol bool `yaml:"proxyProtocol,omitempty" json:"proxyProtocol,omitempty"`
}

// names: what it is about has App Mesh's name.
func (s *VirtualGatewayOptionsSpec) names() (*string, **MeshRef) { return nil, &s.MeshRef }

// sameToOthers: its gateway takes all of it.
func (s *VirtualGatewayOptionsSpec) sameToOthers(old any) bool { return reflect.DeepEqual(s, old) }

func (s *VirtualGatewayOptionsSpec) check(ru *ruler) {
	if len(s.Listeners) == 0 && s.Authorization == "" {
		ru.fail("spec", "says nothing of the gateway: want authorization, listeners or both")
	}
	ports := map[uint32]int{}
	for i, l := range s.Listeners {
		path := fmt.Sprintf("spec.listeners[%d]", i)
		ru.onePort(path, l.Port, ports, i)
		ru.ingress(path+".ingress", l.Ingress)
		for j, in := range l.Ingress {
			if l.ProxyProtocol && len(in.Passes) > 0 {
				ru.fail(fmt.Sprintf("%s.ingress[%d].passes", path, j), "is given beside proxyProtocol: a load balancer of connections sets no header, its clients do")
			}
		}
	}
}

func (*VirtualGatewayOptionsSpec) lacks(*lacking) {}

// optionsName is by what the options of a virtual node or gateway are found, whether there
// are any.
func optionsName(node *Resource) Name {
	k := KindVirtualNodeOptions
	if node.Kind == KindVirtualGateway {
		k = KindGatewayOptions
	}
	return NameOf(k, node.Mesh, DefaultName(k, node.Namespace, node.ObjectName))
}

// options checks that what the options are about is there.
func (b *builder) options(r *Resource) {
	of := r.Kind.about()
	to := b.graph.objects.Get(objectKey{of, r.Mesh, r.Namespace, r.ObjectName})
	if to == nil {
		b.dangling(r, "metadata.name", MissingError{Kind: of, ObjectName: r.ObjectName}, describe(of, r.Namespace, r.ObjectName), " in mesh "+r.Mesh+", and has its name: it is about the "+kindWords[of]+" of its own name")
		return
	}
	b.link(r, to)
	for i, l := range optionsIn(r).Listeners {
		if !slices.Contains(ports(to), l.Port) {
			b.fail(r, fmt.Sprintf("spec.listeners[%d].port", i), "%s has no listener on port %d%s", to, l.Port, to.place())
		}
	}
}

var kindWords = map[Kind]string{KindVirtualNode: "virtual node", KindVirtualGateway: "virtual gateway"}

// optionsIn are a resource's: a gateway may have some of a node's.
func optionsIn(r *Resource) *VirtualNodeOptionsSpec {
	s, ok := r.Spec.(*VirtualGatewayOptionsSpec)
	if !ok {
		return r.Spec.(*VirtualNodeOptionsSpec)
	}
	o := &VirtualNodeOptionsSpec{Authorization: s.Authorization}
	for _, l := range s.Listeners {
		o.Listeners = append(o.Listeners, ListenerOptions{Port: l.Port, Ingress: l.Ingress, ProxyProtocol: l.ProxyProtocol})
	}
	return o
}

// optionsOf are those of a virtual node or gateway, nil where there are none.
func (b *builder) optionsOf(r *Resource) *VirtualNodeOptionsSpec {
	o := b.graph.named.Get(optionsName(r))
	if o == nil || o.Namespace != r.Namespace || o.ObjectName != r.ObjectName {
		return nil
	}
	return optionsIn(o)
}

// observed is what a node's own options say, or else the mesh's.
func (b *builder) observed(r *Resource) bool {
	if o := b.optionsOf(r); o != nil && o.Authorization != "" {
		return o.Authorization == AuthorizationObserve
	}
	return b.graph.Observes(r.Mesh)
}

// apply completes a node's listeners by its options.
func (b *builder) apply(r *Resource, n *VirtualNode) {
	b.linkTo(r, optionsName(r))
	o := b.optionsOf(r)
	if o == nil {
		return
	}
	for _, of := range o.Listeners {
		i := slices.IndexFunc(n.Listeners, func(l Listener) bool { return l.Port == of.Port })
		if i < 0 {
			continue // options reports it
		}
		if t := of.ApplicationTLS; t != nil {
			n.Listeners[i].Application = &Application{trustSecret(t.Trust.File, t.Trust.SDS), t.SubjectAlternativeNames.exact(), strings.TrimSuffix(t.SNI, "."), t.PresentSVID}
		}
		if c := of.CircuitBreaker; c != nil {
			n.Listeners[i].Breaker = c.resolve()
		}
		n.Listeners[i].Ingress, n.Listeners[i].ProxyProtocol = resolveIngress(of.Ingress), of.ProxyProtocol
	}
}

func (c *CircuitBreaker) resolve() Breaker {
	out := Breaker{
		Connections: bound(c.MaxConnections), Pending: bound(c.MaxPendingRequests), Requests: bound(c.MaxRequests), Retries: bound(c.MaxRetries),
		HostConnections: bound(c.MaxConnectionsPerHost), Pools: bound(c.MaxConnectionPools),
	}
	if b := c.RetryBudget; b != nil {
		out.BudgetPercent, out.BudgetLeast = bound(b.Percent), bound(b.MinRetries)
	}
	return out
}
