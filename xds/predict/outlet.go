package predict

import (
	"cmp"
	"strings"
)

// Outlet is where an application connects to speak to a service by bytes.
type Outlet struct {
	Targets []Share
	// Places are those of the proxies that there are.
	Places []Place
}

// Share is a cluster with its share of connections.
type Share struct {
	Cluster string
	Weight  uint32
}

// Place is an address, or a Unix socket, of a proxy whose way out is Beside.
type Place struct{ Beside, At string }

// Compare orders places.
func (p Place) Compare(o Place) int {
	return cmp.Or(strings.Compare(p.Beside, o.Beside), strings.Compare(p.At, o.At))
}
