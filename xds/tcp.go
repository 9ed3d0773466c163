package xds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
)

// outward is one way out of connections: to a service on one of its ports.
type outward struct {
	service string // in lower case
	port    uint32
	to      []weighted
	idle    time.Duration
}

// outwards adds the clusters of all that the node may speak to by tcp. What nothing
// answers has no way out at all: it is refused where it connects.
func (b *builder) outwards() []outward {
	var list []outward
	for _, s := range b.plainFirst() {
		for _, p := range tcpPortsOf(s) {
			targets, idle := b.tcpTargets(s, p)
			if len(targets) > 0 {
				list = append(list, outward{strings.ToLower(s.service.Name), p, targets, idle})
			}
		}
	}
	slices.SortFunc(list, func(x, y outward) int {
		if x.service == y.service {
			return int(x.port) - int(y.port)
		}
		return strings.Compare(x.service, y.service)
	})
	return list
}

func tcpPortsOf(s backend) []uint32 {
	if s.router != nil {
		return s.router.TCPPorts
	}
	var ports []uint32
	if s.node != nil {
		for _, l := range s.node.Listeners {
			if l.Protocol == mesh.ProtocolTCP {
				ports = append(ports, l.Port)
			}
		}
	}
	return ports
}

// tcpTargets are those of the first route for the port: nothing of a connection could
// lead to another one.
func (b *builder) tcpTargets(s backend, p uint32) ([]weighted, time.Duration) {
	if s.router == nil {
		l, _ := listenerOf(s.node, p)
		return []weighted{{b.egressCluster(s, s.node, l), 1}}, l.Timeout.Idle
	}
	for _, r := range s.router.Routes {
		if !r.TCP || r.Match.Port != 0 && r.Match.Port != p {
			continue
		}
		var list []weighted
		for _, t := range r.Targets {
			node := b.read.node(t.Node)
			l, ok := listenerOf(node, t.Port)
			if !ok {
				continue
			}
			name := b.egressCluster(s, node, l) // also of weight 0: it is warm when it gets a share
			i := slices.IndexFunc(list, func(w weighted) bool { return w.cluster == name })
			switch {
			case t.Weight == 0:
			case i >= 0: // the same node twice: its shares add up
				list[i].weight += t.Weight
			default:
				list = append(list, weighted{name, t.Weight})
			}
		}
		return list, r.Timeout.Idle
	}
	return nil, 0
}

// tcpEgress has a listener for each way out, where bytes are meant for one service alone,
// and the application lets itself be known as at the other one (D18).
func (b *builder) tcpEgress(list []outward) {
	taken := b.taken()
	for _, o := range list {
		e := b.shape.Egress.TCP(o.service, o.port, 0)
		for tries := 1; taken[e.String()]; tries++ {
			e = b.shape.Egress.TCP(o.service, o.port, tries)
		}
		taken[e.String()] = true
		if e.Socket != "" && len(e.Socket) > proxy.MaxSocketPath {
			b.fail(fmt.Errorf("%s: longer than a socket's path may be (%d): give the way out a shorter one (egress)", e, proxy.MaxSocketPath))
			return
		}
		b.add(ads.ListenerType, e.Listener(), b.outbound(e, b.outwardConnection(o)))
	}
}

// taken is where the proxy's own listeners and its application are.
func (b *builder) taken() map[string]bool {
	at := map[string]bool{b.shape.Egress.String(): true}
	for _, l := range b.node.Listeners {
		at[b.shape.Bind+":"+port(l.Port)], at[b.shape.App+":"+port(l.Port)] = true, true
	}
	return at
}

func (b *builder) outwardConnection(o outward) *listenerv3.Filter {
	return b.connection("egress", o.to, o.idle, b.life.upstream, b.declaredLogs())
}
