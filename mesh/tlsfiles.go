package mesh

import (
	"fmt"
	"slices"

	"signet.example/proxy"
)

// TLSFiles are the names of the secrets that a node's proxy gets of files of its host,
// sorted.
func (n *VirtualNode) TLSFiles() []string {
	var names []string
	add := func(name string) {
		if ofFiles(name) {
			names = append(names, name)
		}
	}
	for _, l := range n.Listeners {
		if l.TLS != nil && l.TLS.Mode != TLSDisabled {
			add(l.TLS.Certificate)
			add(l.TLS.ClientTrust)
		}
	}
	for _, l := range n.Listeners {
		if l.Application != nil {
			add(l.Application.Trust)
		}
	}
	for _, c := range n.Backends {
		if c.TLS != nil {
			add(c.TLS.Certificate)
			add(c.TLS.Trust)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Untrusting lists the targets' listeners, as "orders:8080", that a node calls and that show
// a certificate of a file, while the node believes no file's authorities there: its calls
// fail.
func (g *Graph) Untrusting(n *VirtualNode) []string {
	var list []string
	for _, c := range n.Backends {
		for at := range g.targets(c.Service) {
			target := g.Node(at)
			if target == nil {
				continue
			}
			for _, l := range target.Listeners {
				if l.TLS == nil || l.TLS.Mode == TLSDisabled || !ofFiles(l.TLS.Certificate) {
					continue
				}
				if p := c.TLS.On(l.Port); p == nil || !ofFiles(p.Trust) {
					list = append(list, fmt.Sprintf("%s:%d", target.Name, l.Port))
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// targets are the nodes to which a service leads.
func (g *Graph) targets(service Name) map[proxy.Ref]bool {
	s := g.Service(service)
	switch {
	case s == nil:
		return nil
	case s.Node != proxy.Ref{}:
		return map[proxy.Ref]bool{s.Node: true}
	}
	if r := g.Router(s.Router); r != nil {
		return r.targets()
	}
	return nil
}
