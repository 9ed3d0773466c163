package policy

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/mesh"
)

// HealthExemptions returns an exemption for each declared health check: GET on
// its path, from the identities that declare a backend which reaches the node.
// A node whose name makes no SPIFFE ID gets none, which denies.
func HealthExemptions(g *mesh.Graph, td spiffeid.TrustDomain) []Exemption {
	var out []Exemption
	for _, h := range g.HealthChecks() {
		destination, err := identity.ForVirtualNode(td, h.Mesh, h.Node)
		if err != nil || h.Method != http.MethodGet {
			continue
		}
		e := Exemption{
			Name:        fmt.Sprintf("generated: health check %s of %s/%s", h.Path, h.Mesh, h.Node),
			Destination: destination.String(),
			Method:      h.Method,
			Path:        h.Path,
		}
		for _, caller := range h.Callers {
			if id, err := identity.ForVirtualNode(td, caller.Mesh, caller.Name); err == nil {
				e.Sources = append(e.Sources, id.String())
			}
		}
		if len(e.Sources) > 0 {
			out = append(out, e)
		}
	}
	return out
}

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
