package policy

import (
	"slices"

	"signet.example/proxy"
)

// exemption finds the exemption of exactly this request. The port counts (another one is another
// application's) and the query. No upgrade is one, which would be a connection for anything, nor
// what a gateway passes on: whoever calls from outside would have the gateway's own probe.
func (c *Compiled) exemption(in Input) (RuleRef, bool) {
	if in.Source.ID.IsZero() && in.Source.Ingress == "" || len(in.Request.Headers["upgrade"]) > 0 || len(in.Request.Headers[proxy.HeaderByGateway]) > 0 {
		return RuleRef{}, false
	}
	key := exemptKey{in.Destination.ID.String(), in.Request.Method, in.Request.Target(), in.Request.Port}
	e, ok := c.exempt[key]
	if !ok {
		key.port = 0
		e = c.exempt[key]
	}
	if in.Source.ID.IsZero() {
		return RuleRef{Name: e.Name}, slices.Contains(e.Ingress, in.Source.Ingress)
	}
	return RuleRef{Name: e.Name}, slices.Contains(e.Sources, in.Source.ID.String())
}

// Observes reports whether what is denied at a destination is let through and recorded.
func (c *Compiled) Observes(in Input) bool { return c.observed[in.Destination.ID.String()] }
