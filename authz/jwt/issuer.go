package jwt

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"signet.example/identity"
)

const (
	defaultRefresh = 5 * time.Minute
	minRefresh     = time.Second
	maxRefresh     = 24 * time.Hour
	maxAudiences   = 32
	maxTextBytes   = 2048
)

// Issuer is an issuer of end-user tokens that are accepted. Its keys are either
// inline (JWKS, RFC 7517 JSON) or fetched by the server (JWKSURL, each Refresh).
type Issuer struct {
	Name, Issuer string
	Audiences    []string
	// AudienceClaim is read in place of aud where a token has no aud; "" is none.
	AudienceClaim string
	JWKSURL       string
	JWKS          []byte
	Refresh       time.Duration
	// ALB is there of load balancers, whose tokens are others (ALBSpec).
	ALB *ALB
}

// IssuerSpec is the spec of kind JWTIssuer; JWKS is RFC 7517 JSON as a string.
type IssuerSpec struct {
	Issuer    string   `yaml:"issuer" json:"issuer"`
	Audiences []string `yaml:"audiences" json:"audiences"`
	// AudienceClaim is for issuers whose tokens have no aud, such as client_id
	// of the access tokens of Amazon Cognito. A token with aud is judged by it.
	AudienceClaim string `yaml:"audienceClaim,omitempty" json:"audienceClaim,omitempty"`
	JWKSURL       string `yaml:"jwksURL,omitempty" json:"jwksURL,omitempty"`
	JWKS          string `yaml:"jwks,omitempty" json:"jwks,omitempty"`
	Refresh       string `yaml:"refresh,omitempty" json:"refresh,omitempty"`
}

// Build understands the spec. An issuer without audiences is refused: its tokens
// for any other service would be good here too (RFC 8725 3.9).
func (s IssuerSpec) Build(name string) (Issuer, error) {
	out, noKeys := s.withKeys(Issuer{Name: name, Issuer: s.Issuer, Audiences: slices.Clone(s.Audiences), AudienceClaim: s.AudienceClaim})
	if err := errors.Join(identity.CheckObjectName(name), checkText("spec.issuer", s.Issuer), checkAudiences(s.Audiences),
		checkAudienceClaim(s.AudienceClaim), noKeys); err != nil {
		return Issuer{}, err
	}
	return out, nil
}

// withKeys adds the keys, or where they are fetched.
func (s IssuerSpec) withKeys(out Issuer) (Issuer, error) {
	switch {
	case s.JWKS != "" && s.JWKSURL != "":
		return Issuer{}, identity.NewFieldError("spec.jwks", "not together with jwksURL: the keys come from one place")
	case s.JWKS != "":
		return s.withInlineKeys(out)
	case s.JWKSURL != "":
		return s.withURL(out)
	}
	return Issuer{}, identity.NewFieldError("spec.jwksURL", "jwksURL or jwks is needed: without keys no token can be verified")
}

func (s IssuerSpec) withInlineKeys(out Issuer) (Issuer, error) {
	if s.Refresh != "" {
		return Issuer{}, identity.NewFieldError("spec.refresh", "only with jwksURL: inline keys are not fetched")
	}
	if _, err := splitSome([]byte(s.JWKS)); err != nil {
		return Issuer{}, &identity.FieldError{Path: "spec.jwks", Msg: err.Error()}
	}
	out.JWKS = []byte(s.JWKS)
	return out, nil
}

func (s IssuerSpec) withURL(out Issuer) (Issuer, error) {
	if err := checkHTTPURL(s.JWKSURL); err != nil {
		return Issuer{}, &identity.FieldError{Path: "spec.jwksURL", Msg: err.Error()}
	}
	var err error
	out.JWKSURL = s.JWKSURL
	out.Refresh, err = identity.ParseDuration("spec.refresh", s.Refresh, defaultRefresh, minRefresh, maxRefresh)
	if err != nil {
		return Issuer{}, err
	}
	return out, nil
}

func checkAudiences(audiences []string) error {
	if len(audiences) == 0 {
		return identity.NewFieldError("spec.audiences", "at least one audience is needed")
	}
	if len(audiences) > maxAudiences {
		return identity.NewFieldError("spec.audiences", "%d audiences: at most %d", len(audiences), maxAudiences)
	}
	for i, a := range audiences {
		at := fmt.Sprintf("spec.audiences[%d]", i)
		if err := checkText(at, a); err != nil {
			return err
		}
		if slices.Contains(audiences[:i], a) {
			return identity.NewFieldError(at, "audience %s is given twice", identity.Abbreviate(a))
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
		return identity.NewFieldError("spec.audienceClaim", "%s says something else; it is for issuers whose tokens have no aud and name the client or service in a claim of its own, such as client_id", claim)
	}
	return checkText("spec.audienceClaim", claim)
}

// Check returns what is refused where the spec is applied, beside what Build refuses: an
// inline key that tokens could not be verified by, and an audience that matches none.
func (s IssuerSpec) Check() error {
	var errs []error
	if s.JWKS != "" && s.JWKSURL == "" {
		if err := CheckKeys([]byte(s.JWKS)); err != nil {
			errs = append(errs, &identity.FieldError{Path: "spec.jwks", Msg: err.Error()})
		}
	}
	if i := slices.IndexFunc(s.Audiences, func(a string) bool { return strings.Contains(a, "*") }); i >= 0 {
		errs = append(errs, identity.NewFieldError(fmt.Sprintf("spec.audiences[%d]", i), "audiences are compared as they are, so a * matches no token: name the service's own audience, and an audienceClaim (such as client_id) for tokens that have no aud"))
	}
	return errors.Join(errs...)
}

func checkText(field, s string) error {
	switch {
	case s == "":
		return identity.NewFieldError(field, "is needed")
	case len(s) > maxTextBytes:
		return identity.NewFieldError(field, "%d bytes: at most %d", len(s), maxTextBytes)
	case !identity.Printable(s):
		return identity.NewFieldError(field, "%s has control characters or invalid UTF-8", identity.Abbreviate(s))
	}
	return nil
}

// checkHTTPURL refuses what would reach something else than a web server, or
// carry a secret in a manifest that is stored and shown.
func checkHTTPURL(s string) error {
	if len(s) > maxTextBytes || !identity.Printable(s) {
		return fmt.Errorf("URL %s: too long or with control characters", identity.Abbreviate(s))
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("URL %s: cannot be parsed", identity.Abbreviate(s)) // the error of url.Parse repeats the whole input
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("URL %s: want http or https", identity.Abbreviate(s))
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("URL %s: no host", identity.Abbreviate(s))
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return fmt.Errorf("URL %s: want https: who sits on the wire would write the keys; http is for loopback addresses", identity.Abbreviate(s))
	case u.User != nil:
		return fmt.Errorf("URL on host %s: credentials do not belong in a manifest", identity.Abbreviate(u.Host))
	case u.Fragment != "":
		return fmt.Errorf("URL %s: a fragment is never sent", identity.Abbreviate(s))
	}
	return nil
}

// loopbackHost reports whether a URL's host is this machine.
func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
