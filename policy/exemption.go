package policy

import (
	"slices"

	"signet.example/proxy"
)

// exemption finds the exemption of exactly this request: the query counts, so
// that a path with any other query is no health check. Neither is an upgrade,
// which would be a connection for anything, nor what a gateway passes on: whoever calls
// from outside of the mesh would have the gateway's own probe.
func (c *Compiled) exemption(in Input) (RuleRef, bool) {
	if in.Source.ID.IsZero() || len(in.Request.Headers["upgrade"]) > 0 || len(in.Request.Headers[proxy.HeaderByGateway]) > 0 {
		return RuleRef{}, false
	}
	e, ok := c.exempt[exemptKey{in.Destination.ID.String(), in.Request.Method, in.Request.Target()}]
	if !ok {
		return RuleRef{}, false
	}
	source := in.Source.ID.String()
	if slices.Contains(e.Sources, source) {
		return RuleRef{Name: e.Name}, true
	}
	return RuleRef{}, false
}
