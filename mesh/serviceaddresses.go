package mesh

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"signet.example/proxy"
)

// ServiceAddresses is from where the virtual services of a mesh have their loopback addresses.
type ServiceAddresses struct {
	// Range of which each service has the one that its name leads to ([proxy.ServiceAddress]).
	Range string `yaml:"range,omitempty" json:"range,omitempty"`
	// Fixed are the addresses of services that are to have another one.
	Fixed []FixedAddress `yaml:"fixed,omitempty" json:"fixed,omitempty" check:"items=1..1000"`
}

// FixedAddress is one that somebody chose.
type FixedAddress struct {
	// Service is App Mesh's name of the virtual service; it need not be there.
	Service string `yaml:"service" json:"service" check:"required len=1..253 pattern=host"`
	Address string `yaml:"address" json:"address" check:"required"`
}

func (s *MeshOptionsSpec) applyDefaults() {
	if a := s.ServiceAddresses; a != nil {
		a.Range = cmp.Or(a.Range, proxy.DefaultServiceRange)
	}
}

func (s *ServiceAddresses) check(ru *ruler, path string) {
	if s == nil {
		return
	}
	if _, err := proxy.ParseServiceRange(cmp.Or(s.Range, proxy.DefaultServiceRange)); err != nil {
		ru.fail(path+".range", "%v", err)
	}
	services, addresses := map[string]int{}, map[netip.Addr]int{}
	for i, f := range s.Fixed {
		at := fmt.Sprintf("%s.fixed[%d]", path, i)
		if first, twice := services[strings.ToLower(f.Service)]; twice {
			ru.fail(at+".service", "%s has an address by fixed[%d] already", f.Service, first)
		}
		services[strings.ToLower(f.Service)] = i
		a, err := proxy.ParseServiceAddress(f.Address)
		if err != nil {
			ru.fail(at+".address", "%v", err)
			continue
		}
		if first, twice := addresses[a]; twice {
			ru.fail(at+".address", "%s is that of %s by fixed[%d] already", a, s.Fixed[first].Service, first)
		}
		addresses[a] = i
	}
}

// of is the address of a service; the spec was checked.
func (s *ServiceAddresses) of(n Name) netip.Addr {
	i := slices.IndexFunc(s.Fixed, func(f FixedAddress) bool { return strings.EqualFold(f.Service, n.Name) })
	if i >= 0 {
		a, _ := proxy.ParseServiceAddress(s.Fixed[i].Address)
		return a
	}
	within, err := proxy.ParseServiceRange(s.Range)
	if err != nil {
		return netip.Addr{}
	}
	return proxy.ServiceAddress(n.Mesh, n.Name, within)
}

// allotted is the address that is a service's own, whether anybody listens there or not.
func (g *Graph) allotted(service Name) netip.Addr {
	s := g.meshOptions(service.Mesh).ServiceAddresses
	if s == nil {
		return netip.Addr{}
	}
	return s.of(service)
}

// serviceAddress is one of a mesh's.
type serviceAddress struct {
	mesh string
	netip.Addr
}

// Compare implements ordered.Key.
func (a serviceAddress) Compare(o serviceAddress) int {
	return cmp.Or(strings.Compare(a.mesh, o.mesh), a.Addr.Compare(o.Addr))
}

// address takes a service's address for it, or refuses one that another one has: whoever has
// learned it would call the wrong one.
func (b *builder) address(r *Resource) {
	name := r.graphName()
	at := serviceAddress{r.Mesh, b.graph.allotted(name)}
	if !at.IsValid() {
		return
	}
	if has := b.graph.addressed.Get(at); has != (Name{}) && has != name {
		other := b.graph.named.Get(has)
		b.fail(r, "metadata.name", "%s has the address of %s%s, %s: give one of them another one in spec.serviceAddresses.fixed of MeshOptions %s",
			r, other, other.place(), at.Addr, b.graph.mesh(r.Mesh).resource.ObjectName)
		return
	}
	b.graph.addressed = b.graph.addressed.With(at, name)
}

// unaddress gives back the address of what is no more.
func (b *builder) unaddress(name Name) {
	at := serviceAddress{name.Mesh, b.graph.allotted(name)}
	if at.IsValid() && b.graph.addressed.Get(at) == name {
		b.graph.addressed = b.graph.addressed.Without(at)
	}
}
