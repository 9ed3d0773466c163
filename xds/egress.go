package xds

import (
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// egress translates what the node may call: one listener in http_proxy form,
// with a virtual host for each declared backend and for nothing else
// (DROP_ALL: an unknown host is 404). made has the routes of the ports for which they were made.
// What is redirected there besides, see capture. It returns the name of its routes.
func (b *builder) egress(hosts []encodedHost, out []outward, made map[uint32]*ads.Resource) (routes string) {
	p := uint32(b.shape.Egress.Port())
	routes = egressRouteName(p)
	if b.shape.Egress.Socket != "" {
		routes = egressSocketRoutes
	}
	if r := made[p]; r != nil {
		b.resources = append(b.resources, r)
	} else {
		made[p] = b.addEncoded(ads.RouteType, routes, routeConfiguration(routes, hosts))
	}
	if b.shape.Capture.Egress != 0 { // it is made of all hosts and ways out, and never kept
		l := b.wayOut(routes)
		b.capture(l, routes, hosts, out)
		b.add(ads.ListenerType, l.GetName(), l)
		return routes
	}
	b.section(b.shape.Egress.Listener(), nil, func() {
		l := b.wayOut(routes)
		b.add(ads.ListenerType, l.GetName(), l)
	})
	return routes
}

// wayOut is the listener in http_proxy form.
func (b *builder) wayOut(routes string) *listenerv3.Listener {
	l := b.outbound(b.shape.Egress, b.egressManager(routes))
	// It has a bound of its own, by its name in the bootstrap: whoever takes all
	// connections of the ways in takes none of the application's.
	l.IgnoreGlobalConnLimit = true
	return l
}

// egressManager has the routes of what the application calls.
func (b *builder) egressManager(routes string) *listenerv3.Filter {
	return b.manager(answers.Out, "egress", routes, mesh.ProtocolHTTP, callers{})
}

// outbound is a listener of the application's own calls, at e; whatever is behind it, the
// agent is asked first whose a connection is.
func (b *builder) outbound(e proxy.Egress, to *listenerv3.Filter) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:                          e.Listener(),
		Address:                       pipe(e.Socket, e.Mode),
		TrafficDirection:              corev3.TrafficDirection_OUTBOUND,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		AccessLog:                     b.connectionLogs(answers.Out, localPort),
		FilterChains: []*listenerv3.FilterChain{{
			Name:    "explicit",
			Filters: []*listenerv3.Filter{b.onlyTheApplication(), to},
		}},
	}
	if e != b.shape.Egress {
		explicit := l.GetFilterChains()[0]
		explicit.Filters = append([]*listenerv3.Filter{b.ofItsShare(l.GetName())}, explicit.GetFilters()...)
	}
	if e.Socket == "" {
		l.Address = address(e.Addr().String(), uint32(e.Port()))
		// The agent is asked at a connection's first byte: without that nobody is, and
		// whoever may not call out could hold connections without end. The inspector
		// is there to wait for it. Whom a socket's mode lets in may be silent
		// (docs/decisions/046).
		l.ListenerFilters, l.ListenerFiltersTimeout = b.inspected(), duration(firstByteTimeout)
	}
	return l
}

// firstByteTimeout is how long a connection may say nothing before it is closed, where
// strangers can connect. In HTTP it is the client that speaks first.
const firstByteTimeout = 2 * time.Second

// onlyTheApplication asks the agent for each new connection whose it is, before
// a byte of it is read as HTTP. Whoever may not call out sees the connection
// closed, and the agent's log says why.
func (b *builder) onlyTheApplication() *listenerv3.Filter {
	return asks(b.part(wayout{}))
}

type wayout struct{}

func (wayout) message(*builder) proto.Message {
	return connectionAuthz("wayout", wayoutCluster)
}

func (b *builder) virtualHosts() []encodedHost {
	var hosts []encodedHost
	seen := map[string]string{}
	for _, s := range b.plainFirst() {
		// Envoy compares hosts in lower case, and reads * in one as a pattern
		// (A20).
		host := strings.ToLower(s.service.Name)
		if host == "" || strings.ContainsAny(host, "*:/ ") {
			b.fail(errHost(s.service.Name))
			continue
		}
		if other, ok := seen[host]; ok {
			b.fail(errSameHost(other, s.service.Name))
			continue
		}
		seen[host] = s.service.Name
		of := remembered{service: s.service, node: s.node, router: s.router, targets: b.targetsOf(s), anyAgain: b.unsafe(proxy.UnsafeRepeatAnyMethod)}
		hosts = append(hosts, b.read.in.Memory.recall(of, func() []encodedHost { return b.encodedHosts(b.hostsOf(s, host)) })...)
	}
	slices.SortFunc(hosts, func(a, b encodedHost) int { return strings.Compare(a.name, b.name) })
	return hosts
}

// encodedHosts validates and encodes the virtual hosts of a service.
func (b *builder) encodedHosts(hosts []*routev3.VirtualHost) []encodedHost {
	var list []encodedHost
	for _, h := range hosts {
		if err := validate(h); err != nil {
			b.fail(err)
			return nil
		}
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(h)
		if err != nil { // a string that is not UTF-8
			b.fail(err)
			return nil
		}
		list = append(list, encodedHost{h.GetName(), body})
	}
	return list
}

// targetsOf adds the clusters of all routes of a service, in their order, and returns to what
// these lead, each once.
func (b *builder) targetsOf(s backend) []target {
	var list []target
	seen := map[mesh.WeightedTarget]bool{}
	for _, p := range portsOf(s) {
		for _, r := range b.routesOf(s, p) {
			for _, t := range r.Targets {
				if t.Weight = 0; seen[t] {
					continue
				}
				seen[t] = true
				to := target{node: b.read.node(t.Node)}
				if l, ok := listenerOf(to.node, t.Port); ok {
					to.cluster = b.egressCluster(s, to.node, l)
				}
				list = append(list, to)
			}
		}
	}
	return list
}

// backend is a service that the node calls, how, and what answers for it.
type backend struct {
	service *mesh.VirtualService
	tls     *mesh.ClientTLS
	node    *mesh.VirtualNode
	router  *mesh.VirtualRouter
}

// plainFirst lists the backends, those without a client policy first, so that
// App Mesh's cluster names go to the ordinary way of calling a target.
func (b *builder) plainFirst() []backend {
	var list []backend
	for _, to := range b.node.Backends {
		s := b.read.service(to.Service)
		list = append(list, backend{s, to.TLS, b.read.node(s.Node), b.read.router(s.Router)})
	}
	special := func(s backend) int {
		if s.tls != nil {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(list, func(x, y backend) int { return special(x) - special(y) })
	return list
}

// hostsOf gives a virtual host to each port of a service.
func (b *builder) hostsOf(s backend, host string) []*routev3.VirtualHost {
	ports := portsOf(s)
	if len(ports) == 0 {
		return []*routev3.VirtualHost{{Name: s.service.Name, Domains: []string{host}}}
	}
	first := mesh.Portless(ports)
	var hosts []*routev3.VirtualHost
	for _, p := range ports {
		v := &routev3.VirtualHost{
			Name:    s.service.Name + ":" + port(p),
			Domains: []string{host + ":" + port(p)},
			Routes:  b.serviceRoutes(s, p), RetryPolicy: b.sharedRetry(),
		}
		if p == first {
			v.Name, v.Domains = s.service.Name, []string{host, host + ":" + port(p)}
		}
		hosts = append(hosts, v)
	}
	return hosts
}

// portsOf lists the ports on which a service may be called by HTTP, each once.
func portsOf(s backend) []uint32 { return mesh.PortsOf(s.node, s.router) }
