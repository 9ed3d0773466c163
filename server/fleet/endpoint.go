package fleet

import (
	"slices"
	"time"

	"signet.example/proxy"
)

// Endpoint is one proxy of one virtual node as its agent reported it.
type Endpoint struct {
	Agent   string `json:"agent"`
	Proxy   string `json:"proxy"`
	Mesh    string `json:"mesh"`
	Node    string `json:"node"`
	Gateway bool   `json:"gateway,omitempty"` // Node is a virtual gateway
	Foreign bool   `json:"foreign,omitempty"` // its agent did not start it
	Address string `json:"address"`
	// Ranged: the address is in a range of its NodeGroup, and not that from which its agent
	// connects.
	Ranged  bool     `json:"ranged,omitempty"`
	Ports   []uint32 `json:"ports"`
	Healthy bool     `json:"healthy"`
	// Failing are those of Ports at which its application fails the health check of the
	// listener: there it is not healthy.
	Failing []uint32  `json:"failing,omitempty"`
	Since   time.Time `json:"since"`
	// Gone is when its agent went away; zero while it is connected.
	Gone time.Time `json:"gone"`
}

// Ref is the virtual node or gateway.
func (e *Endpoint) Ref() proxy.Ref { return proxy.For(e.Mesh, e.Node, e.Gateway) }

func (e *Endpoint) key() string { return e.Agent + "\x00" + e.Proxy }

// HealthyAt reports whether it is healthy at one of its ports.
func (e *Endpoint) HealthyAt(port uint32) bool {
	return e.Healthy && !slices.Contains(e.Failing, port)
}

// same reports whether o is registered as n is.
func (n *Endpoint) same(o *Endpoint) bool {
	return n.serves(o) && n.Ref() == o.Ref() && n.Ranged == o.Ranged && n.Gone.IsZero() == o.Gone.IsZero()
}

// serves reports whether callers of n are told what callers of o are.
func (n *Endpoint) serves(o *Endpoint) bool {
	return n.Address == o.Address && n.Healthy == o.Healthy && slices.Equal(n.Ports, o.Ports) && slices.Equal(n.Failing, o.Failing)
}
