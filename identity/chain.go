package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// maxChain certificates, the leaf included. Ours have two.
	maxChain = 8
	// maxConstraints names in all name constraints of a chain: each is compared
	// with each name of the leaf.
	maxConstraints = 64
	// maxNames in one certificate, of every kind.
	maxNames = 64
)

// VerifyPeer returns who is at the other end of a TLS connection. Every place
// that verifies a peer calls it, with the connection's state as crypto/tls gave
// it: the handshake proves the key of the first certificate and of no other
// (RFC 8446 4.4.2), so that one must be the leaf that is verified. Nothing may
// be taken out of the chain, or moved in it, on the way here.
//
// A handshake that has not ended yet (in VerifyConnection) proves the key when it
// does, and fails otherwise. A resumed one proves nothing anew and is refused.
func VerifyPeer(cs tls.ConnectionState, td spiffeid.TrustDomain, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (spiffeid.ID, error) {
	switch {
	case cs.DidResume:
		return spiffeid.ID{}, errors.New("verify peer: the TLS session is a resumed one")
	case cs.Version < tls.VersionTLS13:
		return spiffeid.ID{}, errors.New("verify peer: the connection is older than TLS 1.3")
	case len(cs.PeerCertificates) == 0:
		return spiffeid.ID{}, errors.New("verify peer: it showed no certificate")
	}
	return VerifyChain(cs.PeerCertificates, td, roots, now, usage)
}

// VerifyChain verifies an X.509-SVID (X509-SVID 5) and returns whose it is. The
// first certificate is the leaf, the others are what may lead from it to a root,
// in any order. The leaf must lie in td, and roots must be td's own: the caller
// picks them by trust domain and never merges two (X509-SVID 5.1, federation).
//
// It says nothing of who holds the leaf's key: for a peer there is VerifyPeer.
//
// It is stricter than go-spiffe: signing certificates are held to X509-SVID 3.2
// and 4, URI name constraints match a host exactly (RFC 5280 4.2.1.10, where Go
// also lets subdomains pass), the chain's length and sizes are bounded, and
// every certificate sent must be readable as what it stands for.
//
// A usage of 0 (x509.ExtKeyUsageAny) asks for no particular one. roots and now
// must be given: nil would mean the machine's roots, and zero its clock.
func VerifyChain(chain []*x509.Certificate, td spiffeid.TrustDomain, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (spiffeid.ID, error) {
	if roots == nil || td.IsZero() || now.IsZero() {
		return spiffeid.ID{}, errors.New("verify SVID: trust domain, roots and time are needed")
	}
	if len(chain) == 0 || len(chain) > maxChain {
		return spiffeid.ID{}, fmt.Errorf("verify SVID: chain of %d certificates: want 1 to %d", len(chain), maxChain)
	}
	id, err := leafID(chain[0])
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("verify SVID: leaf: %w", err)
	}
	if id.TrustDomain() != td {
		return spiffeid.ID{}, fmt.Errorf("verify SVID %q: not of trust domain %q", id, td.Name())
	}
	if err := verifyPath(chain, td, roots, now, usage); err != nil {
		return spiffeid.ID{}, fmt.Errorf("verify SVID %q: %w", id, err)
	}
	return id, nil
}

func verifyPath(chain []*x509.Certificate, td spiffeid.TrustDomain, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) error {
	if err := checkNames(chain[0]); err != nil {
		return err
	}
	for i, c := range chain[1:] {
		if err := checkSigner(c, td); err != nil {
			return fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots:                     roots,
		Intermediates:             PoolOf(chain[1:]...),
		CurrentTime:               now,
		KeyUsages:                 []x509.ExtKeyUsage{usage},
		MaxConstraintComparisions: maxConstraints * maxNames,
	})
	if err != nil {
		return err
	}
	return checkPaths(paths, td)
}

// checkPaths holds at least one of the paths that crypto/x509 found to what it
// does not check itself.
func checkPaths(paths [][]*x509.Certificate, td spiffeid.TrustDomain) error {
	var errs []error
	for _, path := range paths {
		err := checkPath(path[1:], td)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("no path to a root of %q holds: %w", td.Name(), errors.Join(errs...))
}

func checkPath(signers []*x509.Certificate, td spiffeid.TrustDomain) error {
	if len(signers) == 0 {
		// A leaf that is its own root: nothing signed it except itself.
		return errors.New("the leaf itself is among the roots")
	}
	for _, c := range signers {
		if err := checkSigner(c, td); err != nil {
			return err
		}
		if err := checkConstraints(c, td.Name()); err != nil {
			return err
		}
	}
	return nil
}

// checkSigner holds a root or intermediate to X509-SVID 3.2 and 4. That its
// SPIFFE ID lie in the trust domain is only a SHOULD there; ours does, and
// another's CA in our chain is what trust-domain confusion looks like.
func checkSigner(c *x509.Certificate, td spiffeid.TrustDomain) error {
	if err := checkCertificate(c); err != nil {
		return err
	}
	if !c.BasicConstraintsValid || !c.IsCA { // X509-SVID 4.1
		return errors.New("not a signing certificate (cA is false)")
	}
	if err := checkKeyUsageExtension(c); err != nil {
		return err
	}
	if c.KeyUsage&x509.KeyUsageCertSign == 0 { // X509-SVID 4.3
		return errors.New("key usage lacks keyCertSign")
	}
	if err := checkNames(c); err != nil {
		return err
	}
	id, ok, err := uriOf(c)
	switch {
	case err != nil:
		return err
	case !ok:
		return nil // X509-SVID 3.2: a signing certificate SHOULD be an SVID
	case id.Path() != "": // X509-SVID 3.2
		return fmt.Errorf("SPIFFE ID %q of a signing certificate has a path", id)
	case id.TrustDomain() != td:
		return fmt.Errorf("signing certificate of trust domain %q, not %q", id.TrustDomain().Name(), td.Name())
	}
	return nil
}

// checkNames bounds what path validation compares with each other: name
// constraints cost names x constraints (CVE-2025-58187, x509-limbo nc-dos).
func checkNames(c *x509.Certificate) error {
	names := len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses) + len(c.URIs)
	constraints := len(c.PermittedDNSDomains) + len(c.ExcludedDNSDomains) +
		len(c.PermittedIPRanges) + len(c.ExcludedIPRanges) +
		len(c.PermittedEmailAddresses) + len(c.ExcludedEmailAddresses) +
		len(c.PermittedURIDomains) + len(c.ExcludedURIDomains)
	if names > maxNames || constraints > maxConstraints {
		return fmt.Errorf("%d names and %d name constraints: at most %d and %d", names, constraints, maxNames, maxConstraints)
	}
	return nil
}

// checkConstraints applies URI constraints as RFC 5280 4.2.1.10 words them: a
// host is that host alone, ".host" its subdomains alone, without regard to
// case. crypto/x509 has let "host" stand for its subdomains too, and refused
// what is excluded.
func checkConstraints(c *x509.Certificate, host string) error {
	if len(c.PermittedURIDomains) == 0 {
		return nil
	}
	for _, p := range c.PermittedURIDomains {
		if withinURIDomain(host, strings.ToLower(p)) {
			return nil
		}
	}
	return fmt.Errorf("trust domain %q is not among the URI hosts that its signing certificate is confined to", host)
}

func withinURIDomain(host, constraint string) bool {
	if strings.HasPrefix(constraint, ".") {
		return strings.HasSuffix(host, constraint) && len(host) > len(constraint)
	}
	return host == constraint
}
