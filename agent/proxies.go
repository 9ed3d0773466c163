package agent

import (
	"fmt"

	"signet.example/agent/envoy"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/proxy"
)

// This file hands the proxies of the configuration to the part that runs them.

// proxiesOf are the proxies of a configuration as they are run. given is what no
// proxy says of itself.
func proxiesOf(list []Proxy, given proxy.Shape) []envoy.Proxy {
	all := make([]envoy.Proxy, len(list))
	for i, p := range list {
		all[i] = envoy.Proxy{Name: p.Name, Ref: p.ref(), Shape: p.shape(given), Admin: p.Admin, Concurrency: p.Concurrency, User: p.as}
	}
	return all
}

// shape is what the proxy is to the server.
func (p Proxy) shape(given proxy.Shape) proxy.Shape {
	at, _ := p.egress() // Validate has refused what is none
	given.Bind, given.App, given.Egress, given.EgressOpen = p.Bind, p.App, at, p.EgressOpen
	return given
}

// checkProxy looks at the folders that an operator may have changed since the start.
func checkProxy(p envoy.Proxy) error {
	if err := tryEgressFolder(p.Shape.Egress, uidOf(p.User)); err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	return tryApp(p.Shape)
}

// records keeps the denials of proxies beside those of the authz process.
type records struct {
	u     *upstream
	authz *authzProcess
}

// Destination implements envoy.Records.
func (r records) Destination(ref proxy.Ref) string {
	s := r.u.state.Load()
	if s == nil {
		return "" // not known before the first answer of the server
	}
	id, err := identity.ForVirtualNode(s.TrustDomain, ref.Mesh, ref.Name)
	if err != nil {
		return ""
	}
	return id.String()
}

// Denied implements envoy.Records.
func (r records) Denied(d *api.Decision) {
	r.authz.metrics.decisions.Observe(observed(d))
	r.authz.ring.add(d)
}
