package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	defaultJWKSRefresh = 5 * time.Minute
	minJWKSRefresh     = time.Second
	maxJWKSRefresh     = 24 * time.Hour
	maxAudiences       = 32
	maxTextBytes       = 2048
)

// JWTIssuer is an issuer of end-user tokens that are accepted. Its keys are
// either inline (JWKS) or fetched by the server (JWKSURL).
type JWTIssuer struct {
	Name, Issuer string
	Audiences    []string
	// AudienceClaim is read in place of aud where a token has no aud; "" is none.
	AudienceClaim string
	JWKSURL       string
	JWKS          []byte
	Refresh       time.Duration
}

// JWTIssuerSpec is the spec of kind JWTIssuer; JWKS is RFC 7517 JSON as a string.
type JWTIssuerSpec struct {
	Issuer    string   `yaml:"issuer" json:"issuer"`
	Audiences []string `yaml:"audiences" json:"audiences"`
	// AudienceClaim is for issuers whose tokens have no aud, such as client_id
	// of the access tokens of Amazon Cognito. A token with aud is judged by it.
	AudienceClaim string `yaml:"audienceClaim,omitempty" json:"audienceClaim,omitempty"`
	JWKSURL       string `yaml:"jwksURL,omitempty" json:"jwksURL,omitempty"`
	JWKS          string `yaml:"jwks,omitempty" json:"jwks,omitempty"`
	Refresh       string `yaml:"refresh,omitempty" json:"refresh,omitempty"`
}

// Build checks the spec. An issuer without audiences is refused: its tokens
// for any other service would be good here too (RFC 8725 3.9).
func (s JWTIssuerSpec) Build(name string, _ spiffeid.TrustDomain) (JWTIssuer, error) {
	out, noKeys := s.withKeys(JWTIssuer{Name: name, Issuer: s.Issuer, Audiences: slices.Clone(s.Audiences), AudienceClaim: s.AudienceClaim})
	if err := errors.Join(checkObjectName(name), checkText("spec.issuer", s.Issuer), checkAudiences(s.Audiences),
		checkAudienceClaim(s.AudienceClaim), noKeys); err != nil {
		return JWTIssuer{}, err
	}
	return out, nil
}

// withKeys adds the keys, or where they are fetched.
func (s JWTIssuerSpec) withKeys(out JWTIssuer) (JWTIssuer, error) {
	switch {
	case s.JWKS != "" && s.JWKSURL != "":
		return JWTIssuer{}, fieldError("spec.jwks", "not together with jwksURL: the keys come from one place")
	case s.JWKS != "":
		return s.withInlineKeys(out)
	case s.JWKSURL != "":
		return s.withURL(out)
	}
	return JWTIssuer{}, fieldError("spec.jwksURL", "jwksURL or jwks is needed: without keys no token can be verified")
}

func (s JWTIssuerSpec) withInlineKeys(out JWTIssuer) (JWTIssuer, error) {
	if s.Refresh != "" {
		return JWTIssuer{}, fieldError("spec.refresh", "only with jwksURL: inline keys are not fetched")
	}
	if err := CheckJWKS([]byte(s.JWKS)); err != nil {
		return JWTIssuer{}, &FieldError{Path: "spec.jwks", Msg: err.Error()}
	}
	out.JWKS = []byte(s.JWKS)
	return out, nil
}

func (s JWTIssuerSpec) withURL(out JWTIssuer) (JWTIssuer, error) {
	if err := checkHTTPURL(s.JWKSURL); err != nil {
		return JWTIssuer{}, &FieldError{Path: "spec.jwksURL", Msg: err.Error()}
	}
	var err error
	out.JWKSURL = s.JWKSURL
	out.Refresh, err = buildDuration("spec.refresh", s.Refresh, defaultJWKSRefresh, minJWKSRefresh, maxJWKSRefresh)
	if err != nil {
		return JWTIssuer{}, err
	}
	return out, nil
}

func checkAudiences(audiences []string) error {
	if len(audiences) == 0 {
		return fieldError("spec.audiences", "at least one audience is needed")
	}
	if len(audiences) > maxAudiences {
		return fieldError("spec.audiences", "%d audiences: at most %d", len(audiences), maxAudiences)
	}
	for i, a := range audiences {
		at := fmt.Sprintf("spec.audiences[%d]", i)
		if err := checkText(at, a); err != nil {
			return err
		}
		if slices.Contains(audiences[:i], a) {
			return fieldError(at, "audience %s is given twice", abbreviate(a))
		}
	}
	return nil
}

// checkAudienceClaim refuses claims that say something else: RFC 7519 4.1 has
// who signed, for whom, and when.
func checkAudienceClaim(claim string) error {
	switch {
	case claim == "":
		return nil
	case slices.Contains([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "scp"}, claim):
		return fieldError("spec.audienceClaim", "%s says something else; it is for issuers whose tokens have no aud and name the client or service in a claim of its own, such as client_id", claim)
	}
	return checkText("spec.audienceClaim", claim)
}

// Wildcard returns the index of an audience that is written as a pattern, -1
// without one: audiences are compared as they are, so it would match no token.
func (i JWTIssuer) Wildcard() int {
	return slices.IndexFunc(i.Audiences, func(a string) bool { return strings.Contains(a, "*") })
}

func checkText(field, s string) error {
	switch {
	case s == "":
		return fieldError(field, "is needed")
	case len(s) > maxTextBytes:
		return fieldError(field, "%d bytes: at most %d", len(s), maxTextBytes)
	case !printable(s):
		return fieldError(field, "%s has control characters or invalid UTF-8", abbreviate(s))
	}
	return nil
}

// checkHTTPURL refuses what would reach something else than a web server, or
// carry a secret in a manifest that is stored and shown.
func checkHTTPURL(s string) error {
	if len(s) > maxTextBytes || !printable(s) {
		return fmt.Errorf("URL %s: too long or with control characters", abbreviate(s))
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("URL %s: cannot be parsed", abbreviate(s)) // the error of url.Parse repeats the whole input
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("URL %s: want http or https", abbreviate(s))
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("URL %s: no host", abbreviate(s))
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return fmt.Errorf("URL %s: want https: who sits on the wire would write the keys; http is for loopback addresses", abbreviate(s))
	case u.User != nil:
		return fmt.Errorf("URL on host %s: credentials do not belong in a manifest", abbreviate(u.Host))
	case u.Fragment != "":
		return fmt.Errorf("URL %s: a fragment is never sent", abbreviate(s))
	}
	return nil
}

// loopbackHost reports whether a URL's host is this machine.
func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
