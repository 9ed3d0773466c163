package jwt

import (
	"fmt"
	"slices"
)

// Issuers are those whose tokens are accepted, with the keys that can be used.
type Issuers struct {
	by     map[string]*issuer
	bearer bool // some are of bearer tokens
	albs   []*alb
}

// NewIssuers returns the issuers, and why a key or one of them is left out.
func NewIssuers(configured []Issuer) (Issuers, []error) {
	out := Issuers{by: map[string]*issuer{}}
	var problems []error
	for _, c := range configured {
		raw, err := splitKeys(c.JWKS)
		keys, _, left := read(raw)
		if err != nil {
			left = append(left, err)
		}
		for _, err := range left {
			problems = append(problems, fmt.Errorf("issuer %s: %w", c.Name, err))
		}
		if c.ALB != nil {
			out.albs = append(out.albs, &alb{of: *c.ALB, key: c.Key(), issuer: c.Issuer, clients: slices.Clone(c.Audiences), trusted: issuer{keys: keys}})
			continue
		}
		out.bearer = true
		if c.Issuer == "" || out.by[c.Issuer] != nil {
			problems = append(problems, fmt.Errorf("issuer %s: no issuer URL, or one that another has", c.Name))
			continue
		}
		out.by[c.Issuer] = &issuer{audiences: slices.Clone(c.Audiences), audienceClaim: c.AudienceClaim, keys: keys}
	}
	return out, problems
}
