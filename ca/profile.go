package ca

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

// Request asks for one certificate. The caller has authorized it; the issuer
// checks all that can be checked without knowing why it was.
type Request struct {
	ID spiffeid.ID
	// CSR in DER. Only the public key and the proof of its possession are taken from it.
	CSR []byte
	// Lifetime counts from issuance; zero means the profile's default.
	Lifetime time.Duration
	// Profile: "workload", "agent" or "server".
	Profile string
	// Requester: SPIFFE ID of the agent, or "server".
	Requester string
}

// Result answers one Request: Chain in DER, leaf first, or Err.
type Result struct {
	Chain [][]byte
	Err   error
}

// The names of the profiles.
const (
	ProfileWorkload = "workload" // any identity except Signet's own
	ProfileAgent    = "agent"    // /signet/agent/<id>
	ProfileServer   = "server"   // /signet/server/<name>
)

// Profiles bounds what the issuer signs. The zero value works.
type Profiles struct {
	// Default lifetime of a request that names none; 60 minutes if zero.
	Default time.Duration
	// Min lifetime; 1 second, the resolution of a certificate, if zero.
	Min time.Duration
	// Max lifetime; if zero, 24 hours or a sixth of the issuing certificate's
	// life, whichever is shorter.
	Max time.Duration
	// AllowRSA accepts RSA keys of 2048 to 8192 bits.
	AllowRSA bool
}

// lifeRatio: an issuing certificate is renewed at half its life, and what is
// left then must still cover any leaf several times over. A CA that silently
// shortens leaves instead has caused outages.
const lifeRatio = 6

// within fills in the defaults and holds the lifetimes to each other and to an
// issuing certificate of the given life.
func (p Profiles) within(life time.Duration) (Profiles, error) {
	if p.Min == 0 {
		p.Min = time.Second
	}
	if p.Default == 0 {
		p.Default = time.Hour
	}
	if p.Max == 0 {
		p.Max = min(24*time.Hour, life/lifeRatio)
	}
	switch {
	case p.Min < time.Second:
		return p, fmt.Errorf("%w: lifetimes from %s: a certificate counts in seconds", ErrConfig, p.Min)
	case p.Default < p.Min:
		return p, fmt.Errorf("%w: default lifetime %s is below the minimum %s", ErrConfig, p.Default, p.Min)
	case life < lifeRatio*p.Default || life < lifeRatio*p.Max:
		return p, fmt.Errorf("%w: the issuing certificate lives %s, less than %d times a leaf of %s",
			ErrConfig, life, lifeRatio, max(p.Default, p.Max))
	case p.Default > p.Max:
		return p, fmt.Errorf("%w: default lifetime %s is above the maximum %s", ErrConfig, p.Default, p.Max)
	}
	return p, nil
}

// Check reports whether profiles fit an authority. An Issuer with profiles that do
// not fit refuses every request with this error; call it at start to say so then.
func (p Profiles) Check(a *Authority) error {
	_, err := p.within(a.life())
	return err
}

// lifetime is what a request gets, in whole seconds.
func (p Profiles) lifetime(asked time.Duration) (time.Duration, error) {
	if asked == 0 {
		asked = p.Default
	}
	if asked < p.Min || asked > p.Max {
		return 0, fmt.Errorf("%w: lifetime %s is not between %s and %s", ErrInvalid, asked, p.Min, p.Max)
	}
	return asked.Truncate(time.Second), nil
}

// checkID holds an identity to its profile. A request for an agent's or server's
// identity under the wrong name of profile is refused like any other.
func checkID(id spiffeid.ID, td spiffeid.TrustDomain, profile string) error {
	if id.IsZero() || id.TrustDomain() != td {
		return fmt.Errorf("%w: %q is not of trust domain %q", ErrInvalid, id, td.Name())
	}
	if len(id.String()) > maxID || id.Path() == "" { // SPIFFE-ID 2.3; X509-SVID 3.1
		return fmt.Errorf("%w: the SPIFFE ID of a leaf has a path and at most %d bytes", ErrInvalid, maxID)
	}
	fits := false
	switch profile {
	case ProfileWorkload:
		fits = !identity.IsReserved(id)
	case ProfileAgent:
		_, fits = identity.AgentID(id)
	case ProfileServer:
		_, fits = identity.ServerName(id)
	default:
		return fmt.Errorf("%w: profile %q is not known", ErrInvalid, clip(profile))
	}
	if !fits {
		return fmt.Errorf("%w: %q is not an identity of profile %q", ErrInvalid, id, profile)
	}
	return nil
}
