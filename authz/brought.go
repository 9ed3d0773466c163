package authz

import (
	"context"
	"errors"

	"signet.example/authz/jwt"
	"signet.example/policy"
)

// albHeader is where a load balancer says who its user is, and signs it. What it says unsigned
// (x-amzn-oidc-identity, x-amzn-oidc-accesstoken) is not read.
const albHeader = "x-amzn-oidc-data"

var (
	errTokenTwice = errors.New("malformed: several headers " + albHeader)
	errTokenOfTwo = errors.New("the request has a load balancer's, too, and policies see one")
)

// brought is an end user's token, as a request has it.
type brought struct {
	text string
	alb  bool // a load balancer's, in its own header
	from jwt.From
}

func (b brought) name() string {
	if b.alb {
		return "the load balancer's token (" + albHeader + ")"
	}
	return "the bearer token"
}

func (b brought) parse() (jwt.Compact, error) {
	if b.alb {
		return jwt.ParseALB(b.text)
	}
	return jwt.Parse(b.text)
}

// find returns the token of a request, if there is one that an issuer here could be of. One
// that is taken from others only is a header like any.
func (v *verifier) find(in *policy.Input) (b brought, present bool, err error) {
	b.from = broughtBy(*in)
	values := in.Request.Headers[albHeader]
	b.alb = len(values) > 0 && v.issuers.TakesALB(b.from)
	if v.issuers.BearerTokens() {
		if b.text, present, err = bearer(in.Request.Headers); present && b.alb {
			b.alb, err = false, errTokenOfTwo
		}
	}
	switch {
	case present || !b.alb:
	case len(values) > 1:
		present, err = true, errTokenTwice
	default:
		b.text, present = values[0], true
	}
	return b, present, err
}

// checkToken verifies an end user's token where any issuer is trusted; a bad one is
// a denial, whatever the policy would say to a request without. Without
// issuers there is no input.jwt.
func (s *Server) checkToken(ctx context.Context, st *state, in *policy.Input, a *answer) bool {
	if st.verifier == nil {
		return true
	}
	b, present, err := st.verifier.find(in)
	if !present {
		return true
	}
	var t *token
	if err == nil {
		t, err = st.verifier.verify(b, in.Time)
	}
	if unknown, ok := errors.AsType[*jwt.UnknownKeyError](err); ok && b.from.Ingress != "" {
		t, err = s.awaitKey(ctx, st, b, unknown, in.Time)
	}
	a.record.Token = summary(b, t, err, st.hashKey)
	if err != nil {
		a.refuseToken(b, err)
		return false
	}
	in.JWT = t.claims
	return true
}
