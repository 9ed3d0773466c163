// Package proxies is what an operator is shown of proxies: what one does with a request, what it
// is to have and what it has, and what a change does to all of them. It changes nothing.
//
// It must not know how anything is stored, translated or served: it has the [Routing], and the
// proxies that agents report. Which mesh and which object an operator means is found by whoever
// calls it, except for proxies by their name, which may be those of any agent.
//
// All of it is safe for any number of goroutines.
package proxies

import (
	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/xds/predict"
)

// Routing is what proxies do, by what they are to have now.
type Routing interface {
	// Predict is what a proxy does with a request: of a virtual node with one of its
	// application, of a gateway with one that comes to a port of it, 0 for its only one.
	Predict(of proxy.Ref, port uint32, r predict.Request) (predict.Outcome, error)
	// Bounds are those of the proxy of the virtual node that a cluster of a mesh leads to, nil
	// where that is no proxy of ours.
	Bounds(mesh, cluster string) (*predict.Bounds, error)
	// Ports are those at which the proxy of a virtual node has a host, for requests and for
	// connections of tcp.
	Ports(of proxy.Ref, host string) (requests, connections []uint32, err error)
	// Outlet is where the application of a virtual node speaks to a service on a port of
	// protocol tcp, nil where that is none.
	Outlet(of proxy.Ref, service string, port uint32) (*predict.Outlet, error)
}

// Proxies are all that there are. Every field is needed.
type Proxies struct {
	Routing Routing
	// Config is what a proxy of a virtual node or gateway is to have that is bound to an
	// address, with what is in each resource if full is set and which returns true for it.
	Config func(of proxy.Ref, bind string, full bool, which func(typeURL, name string) bool) (*api.ProxyConfig, error)
	// Agents are all that joined, with what each reports.
	Agents func() []fleet.Status
}
