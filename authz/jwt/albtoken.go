package jwt

import (
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
)

// maxALBToken: a load balancer sends at most 11 KiB of claims, before they are encoded.
const maxALBToken = 16 << 10

var (
	errPadded    = errors.New("malformed: not three parts of base64url with padding")
	errALBKeyID  = errors.New("its kid is not a UUID")
	errALBAlg    = errors.New("its algorithm is not ES256")
	errSigner    = errors.New("no ALBIssuer has the load balancer that signed it (signer)")
	errALBIssuer = errors.New("its issuer (iss) is not that of the ALBIssuer of its signer")
	errClient    = errors.New("its client is none of the ALBIssuer of its signer")
	errFrom      = errors.New("the ALBIssuer of its signer does not take it from this caller")
	errTwoSaid   = errors.New("its claims have another issuer (iss) than its header")
)

// A load balancer keeps the padding, against RFC 7515 2.
var albForm = &form{'a', base64.URLEncoding.Strict(), maxALBToken, errPadded}

// ParseALB is Parse of a load balancer's token.
func ParseALB(text string) (Compact, error) { return albForm.parse(text) }

// keyIDRE matches the ids of load balancers' keys. One becomes part of a URL.
var keyIDRE = regexp.MustCompile(`^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)

// IsALBKeyID reports whether an id is in the form of those of load balancers' keys.
func IsALBKeyID(kid string) bool { return keyIDRE.MatchString(kid) }

// From is who brings a token: an ingress by its name, or an identity.
type From struct{ Ingress, ID string }

// UnknownKeyError is returned of a load balancer's token that could be good: it says that it
// is signed by a key that is not here. Nothing of it is proven.
type UnknownKeyError struct{ Issuer, KeyID string }

// Error implements error.
func (*UnknownKeyError) Error() string { return "the key that it is signed by is not here yet" }

// alb is an issuer that is load balancers, with its usable keys.
type alb struct {
	of          ALB
	key, issuer string
	clients     []string
	trusted     issuer
}

func (b *alb) takes(from From) bool {
	return from.Ingress != "" && slices.Contains(b.of.Ingress, from.Ingress) || from.ID != "" && slices.Contains(b.of.Callers, from.ID)
}

// BearerTokens reports whether there are issuers of them.
func (i Issuers) BearerTokens() bool { return i.bearer }

// TakesALB reports whether a load balancer's token is taken from a caller. From all others
// it is a header like any.
func (i Issuers) TakesALB(from From) bool {
	return slices.ContainsFunc(i.albs, func(b *alb) bool { return b.takes(from) })
}

// VerifyALB is Verify of a load balancer's token that a caller brings: brought by another one, it
// has to be verified again.
func (i Issuers) VerifyALB(c Compact, from From) (*Token, error) {
	header, err := headerMembers(c.header)
	if err != nil {
		return nil, err
	}
	claims, err := decodeObject(c.payload)
	if err != nil {
		return nil, ErrPayload
	}
	kid, _ := header["kid"].(string)
	switch {
	case header["alg"] != string(algorithmOfALB):
		return nil, errALBAlg
	case !IsALBKeyID(kid):
		return nil, errALBKeyID
	}
	// What is not proven yet only chooses who must have signed.
	said := map[string]string{}
	for _, name := range []string{"signer", "iss", "client"} {
		said[name], _ = header[name].(string)
	}
	of, err := i.albOf(said["signer"], said["iss"], said["client"], from)
	if err != nil {
		return nil, err
	}
	by, err := of.trusted.key(string(algorithmOfALB), kid)
	if err != nil {
		return nil, &UnknownKeyError{of.key, kid}
	}
	if err := checkSignature(c, by); err != nil {
		return nil, err
	}
	if iss, ok := claims["iss"]; ok && iss != said["iss"] {
		return nil, errTwoSaid
	}
	t := &Token{Issuer: said["iss"], KeyID: kid, Audience: []string{said["client"]}, Claims: claims, Size: len(c.payload)}
	for name, text := range said {
		claims[name] = text // of who logged the user in, and which load balancer says so
	}
	return t, t.readALBTimes(header)
}

// readALBTimes reads the times of the claims, and that of the header, which is there in any
// case: the earlier end holds.
func (t *Token) readALBTimes(header map[string]any) error {
	exp, ok, err := numericDate(header, "exp")
	switch {
	case err != nil:
		return err
	case !ok:
		return errNoExpiry
	}
	t.Expiry = exp
	if _, ok := t.Claims["exp"]; !ok {
		t.Claims["exp"] = header["exp"]
	}
	if err := t.readTimes(); err != nil {
		return err
	}
	if exp.Before(t.Expiry) {
		t.Expiry = exp
	}
	return nil
}

// albOf is the issuer that a token says it is of, and that takes it from a caller.
func (i Issuers) albOf(signer, iss, client string, from From) (*alb, error) {
	why := errSigner
	for _, b := range i.albs {
		switch {
		case !slices.Contains(b.of.Signers, signer):
		case b.issuer != iss:
			why = errALBIssuer
		case !slices.Contains(b.clients, client):
			why = errClient
		case !b.takes(from):
			why = errFrom
		default:
			return b, nil
		}
	}
	return nil, why
}
