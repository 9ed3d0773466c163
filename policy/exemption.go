package policy

import (
	"net/http"
	"slices"
)

// exemption finds the exemption of exactly this request: the query counts, so
// that a path with any other query is no health check. Neither is an upgrade,
// which would be a connection for anything.
func (c *Compiled) exemption(in Input) (RuleRef, bool) {
	if in.Source.ID.IsZero() || in.Request.Method != http.MethodGet || len(in.Request.Headers["upgrade"]) > 0 {
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
