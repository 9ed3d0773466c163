package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Name constraints (RFC 5280 4.2.1.10) in a form that every TLS stack in use
// reads; docs/decisions/019 has what each of them makes of which. They are
// critical. Mail is confined to a domain that cannot exist (RFC 2606 2), not
// excluded: Java cannot parse an empty excluded rfc822Name, and OpenSSL and
// BoringSSL take one literally.
const nowhere = "none.invalid"

// constrainRoot forbids what no SVID will ever have. DNS names are forbidden by
// the issuing certificate alone: a root lives for ten years, and entries may have
// DNS names one day.
func constrainRoot(t *x509.Certificate, td spiffeid.TrustDomain, confineURIs bool) {
	t.PermittedDNSDomainsCritical = true // of all name constraints, whatever its name says
	t.PermittedEmailAddresses = []string{nowhere}
	t.ExcludedIPRanges = everyAddress()
	if confineURIs {
		t.PermittedURIDomains = []string{td.Name()}
	}
}

// constrainIssuing is what an issuing certificate is confined to.
func constrainIssuing(t *x509.Certificate, td spiffeid.TrustDomain, confineURIs bool) {
	constrainRoot(t, td, confineURIs)
	t.ExcludedDNSDomains = []string{""} // every one
}

func everyAddress() []*net.IPNet {
	return []*net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

// confinesURIs reports what was chosen when the trust domain was made: the root
// says it.
func confinesURIs(root *x509.Certificate) bool { return len(root.PermittedURIDomains) > 0 }

// readable reports whether every TLS stack can parse the constraints: those of
// the first version exclude an empty mail name.
func readable(c *x509.Certificate) bool { return len(c.ExcludedEmailAddresses) == 0 }

// checkConfined holds an issuing certificate to what it must be confined to at
// least; those of the first version forbid more.
func checkConfined(c *x509.Certificate, td spiffeid.TrustDomain, toURIs bool) error {
	switch {
	case !c.PermittedDNSDomainsCritical || !slices.Contains(c.ExcludedDNSDomains, "") ||
		!slices.Equal(c.PermittedEmailAddresses, []string{nowhere}) || !excludesEveryAddress(c):
		return errors.New("DNS names, addresses or mail are not forbidden to it")
	case toURIs && !slices.Equal(c.PermittedURIDomains, []string{td.Name()}):
		return fmt.Errorf("it is not confined to trust domain %q", td.Name())
	case !toURIs && len(c.PermittedURIDomains) > 0:
		return errors.New("it is confined to URIs, and its root is not")
	}
	return nil
}

func excludesEveryAddress(c *x509.Certificate) bool {
	for _, all := range everyAddress() {
		if !slices.ContainsFunc(c.ExcludedIPRanges, func(n *net.IPNet) bool { return n.String() == all.String() }) {
			return false
		}
	}
	return true
}
