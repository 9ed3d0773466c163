package policy

import (
	"fmt"
	"net/http"
	"slices"
)

func (c *Compiled) addExemptions() error {
	for _, e := range c.rev.Exemptions {
		if e.Method != http.MethodGet || e.Name == "" || e.Path == "" || e.Path[0] != '/' {
			return fmt.Errorf("policy revision %s: exemption %q: want a name and GET on a path", c.rev.ID, e.Name)
		}
		key := exemptKey{e.Destination, e.Method, e.Path}
		if old, ok := c.exempt[key]; ok {
			e.Sources = append(append([]string(nil), old.Sources...), e.Sources...)
		}
		c.exempt[key] = e
	}
	return nil
}

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
