package xdstest

import (
	"fmt"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/xds"
	"signet.example/xds/predict"
)

// Sends is what becomes of calls at a caller's proxy, by its configuration and not by what a
// policy is drafted of: of a gateway what comes to it, else what its application calls.
type Sends struct {
	// Callees are whom any route leads to, also one that no request comes to, since those
	// before it take all.
	Callees map[proxy.Ref]bool
	List    []Send
}

// Send is a request, or a connection of tcp.
type Send struct {
	Request predict.Request
	// Listener is the port of the gateway's to which it comes.
	Listener uint32
	// Port is that of a connection, 0 of a request; Service is what it is made to.
	Port    uint32
	Service string
	// Asked is what the policy is asked about it, at each virtual node that it may lead to,
	// and before that at the gateway that it comes to.
	Asked []Asked
}

// Asked is what one proxy's policy is asked.
type Asked struct {
	At proxy.Ref
	What
}

// What is a call at a callee.
type What struct {
	Method, Host, Path string
	Listener           uint32 // the port to which a request comes
	Port               uint32 // of a connection
}

// ingressRoutes are what comes in is routed by: behind it stand the protocol and the port.
const ingressRoutes = "rds_ingress_"

// SendsOf reads the configuration of a caller in a mesh all of whose nodes have proxies of ours.
func SendsOf(g *mesh.Graph, from *mesh.VirtualNode) (Sends, error) {
	in := xds.Input{Graph: g, TrustDomain: TrustDomain, PolicyRevision: "5f0c2a", Managed: func(proxy.Ref) bool { return true }}
	shape := Shape
	shape.Suit(from.Ref)
	set, err := xds.Build(in, from.Ref, shape)
	if err != nil {
		return Sends{}, err
	}
	s := Sends{Callees: map[proxy.Ref]bool{}}
	for _, r := range set.Type(ads.RouteType) {
		rc := &routev3.RouteConfiguration{}
		if err := proto.Unmarshal(r.Body, rc); err != nil {
			return s, err
		}
		if strings.HasPrefix(r.Name, ingressRoutes) != (from.Gateway != nil) {
			continue
		}
		for _, h := range rc.GetVirtualHosts() {
			if err := s.host(g, from, rc, h); err != nil {
				return s, err
			}
		}
	}
	s.connections(g, from)
	return s, nil
}

func (s *Sends) host(g *mesh.Graph, from *mesh.VirtualNode, rc *routev3.RouteConfiguration, h *routev3.VirtualHost) error {
	for _, route := range h.GetRoutes() {
		if to := route.GetRoute(); to != nil {
			callees, err := calleesOf(g, from.Mesh, to)
			if err != nil {
				return err
			}
			for _, callee := range callees {
				s.Callees[callee.ref] = true
			}
		}
	}
	for _, request := range predict.RequestsOf(h) {
		out, err := predict.Of(rc, request)
		if err != nil {
			return err
		}
		to := out.Route.GetRoute()
		if to == nil {
			continue
		}
		path, _, _ := strings.Cut(request.Path, "?")
		send := Send{Request: request}
		if from.Gateway != nil {
			_, port, _ := strings.Cut(strings.TrimPrefix(rc.GetName(), ingressRoutes), "_")
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return fmt.Errorf("%s: %w", rc.GetName(), err)
			}
			send.Listener = uint32(n)
			send.Asked = append(send.Asked, Asked{from.Ref, What{Method: request.Method, Host: request.Authority, Path: path, Listener: send.Listener}})
		}
		if path, err = rewritten(out.Route, path); err != nil {
			return err
		}
		callees, err := calleesOf(g, from.Mesh, to)
		if err != nil {
			return err
		}
		for _, callee := range callees {
			send.Asked = append(send.Asked, Asked{callee.ref, What{Method: request.Method, Path: path, Listener: callee.port}})
		}
		s.List = append(s.List, send)
	}
	return nil
}

// connections are those of tcp, as the graph has them.
func (s *Sends) connections(g *mesh.Graph, from *mesh.VirtualNode) {
	for _, callee := range g.Nodes(from.Mesh) {
		for _, l := range callee.Listeners {
			if l.Protocol != mesh.ProtocolTCP {
				continue
			}
			for _, caller := range g.TCPCallers(callee, l.Port) {
				if caller.Ref == from.Ref {
					s.Callees[callee.Ref] = true
					s.List = append(s.List, Send{Port: l.Port, Service: serviceOf(g, from, callee, l.Port), Asked: []Asked{{callee.Ref, What{Port: l.Port}}}})
				}
			}
		}
	}
}

// serviceOf is one by which a caller connects to a port of a callee's.
func serviceOf(g *mesh.Graph, from, to *mesh.VirtualNode, port uint32) string {
	for _, e := range g.Edges(from.Mesh) {
		if e.Caller == from && e.Callee == to && e.Port == port {
			return e.Service
		}
	}
	return ""
}

// listener is one of a virtual node.
type listener struct {
	ref  proxy.Ref
	port uint32
}

// calleesOf are the listeners of virtual nodes to which a route leads.
func calleesOf(g *mesh.Graph, mesh string, to *routev3.RouteAction) (list []listener, err error) {
	names := []string{to.GetCluster()}
	for _, c := range to.GetWeightedClusters().GetClusters() {
		names = append(names, c.GetName())
	}
	for _, name := range names {
		for _, n := range g.Nodes(mesh) {
			for _, protocol := range []string{"http", "http2", "grpc"} {
				rest, ok := strings.CutPrefix(name, "cds_egress_"+n.Mesh+"_"+n.Name+"_"+protocol+"_")
				if !ok {
					continue
				}
				rest, _, _ = strings.Cut(rest, "_")
				port, err := strconv.ParseUint(rest, 10, 16)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				list = append(list, listener{n.Ref, uint32(port)})
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no virtual node of %v", names)
	}
	return list, nil
}

// rewritten is the path as the callee sees it.
func rewritten(r *routev3.Route, path string) (string, error) {
	switch to := r.GetRoute().GetPrefixRewrite(); {
	case r.GetRoute().GetRegexRewrite() != nil:
		return "", fmt.Errorf("a rewrite by %v", r.GetRoute().GetRegexRewrite())
	case to != "" && r.GetMatch().GetPath() != "":
		return to, nil
	case to != "":
		return to + strings.TrimPrefix(path, r.GetMatch().GetPrefix()), nil
	}
	return path, nil
}
