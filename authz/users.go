package authz

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	"signet.example/authz/jwt"
	"signet.example/policy"
	"signet.example/proxy"
)

// broughtBy is who brings what a load balancer says of its user.
func broughtBy(in policy.Input) jwt.From {
	from := jwt.From{Ingress: in.Source.Ingress}
	if !in.Source.ID.IsZero() {
		from.ID = in.Source.ID.String()
	}
	return from
}

// withholdUsers takes from a request what a load balancer says of its user, and returns the names
// of those headers, unless it comes from an ingress or a caller whom an issuer names, or the proxy
// says that it passes: applications believe it, and most of it is not signed.
func (st *state) withholdUsers(ctx context.Context, in policy.Input) []string {
	if st.verifier != nil && st.verifier.issuers.TakesALB(broughtBy(in)) ||
		slices.Contains(metadata.ValueFromIncomingContext(ctx, proxy.LetThroughKey), proxy.UnsafeUserHeaders) {
		return nil
	}
	var names []string
	for name := range in.Request.Headers {
		if slices.ContainsFunc(proxy.UserHeaders(), func(begins string) bool { return strings.HasPrefix(name, begins) }) {
			names = append(names, name)
			delete(in.Request.Headers, name)
		}
	}
	slices.Sort(names)
	return names
}
