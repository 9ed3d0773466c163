package sds

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
)

// The names of plain SDS that stand for what the caller has, whatever that is called. They are
// SPIRE's, so that an Envoy that was configured for its agent goes on.
const (
	NameDefault = "default" // the caller's default SVID
	NameRoots   = "ROOTCA"  // the authorities of the trust domain of that
	NameAll     = "ALL"     // those of every trust domain that the caller may trust, each for its own names
)

// Plain is what an Envoy that asks for secrets alone has of its process's Updates. It is for
// one goroutine.
type Plain struct {
	had  map[string]bool          // names that it was given, and whether each is a certificate
	gone map[string]*ads.Resource // what is in the place of those that it has no more
}

// Next is the set of an Update. What the process had and has no more is replaced by what
// nobody trusts: a Secret that is removed Envoy keeps (D13).
func (p *Plain) Next(u Update, now time.Time) (*ads.Set, error) {
	if len(u.SVIDs) == 0 {
		return nil, ErrNoIdentity
	}
	var made []*ads.Resource
	certificates := map[string]bool{}
	add := func(r *ads.Resource, certificate bool, err error) error {
		if err == nil {
			made, certificates[r.Name] = append(made, r), certificate
		}
		return err
	}
	for i, s := range u.SVIDs {
		r, err := SVIDSecret(s.ID, s.Chain, s.Key)
		if err := add(r, true, err); err != nil {
			return nil, err
		}
		if i == 0 {
			r, err = CertificateSecret(NameDefault, s.Chain, s.Key)
			if err := add(r, true, err); err != nil {
				return nil, err
			}
		}
	}
	own := u.SVIDs[0].ID.TrustDomain().IDString()
	if len(u.Bundles[own]) == 0 {
		return nil, fmt.Errorf("no bundle of %s: %w", own, ErrUnavailable)
	}
	for td, roots := range u.Bundles {
		r, err := AuthoritiesSecret(td, roots)
		if err := add(r, false, err); err != nil {
			return nil, err
		}
	}
	r, err := AuthoritiesSecret(NameRoots, u.Bundles[own])
	if err := add(r, false, err); err != nil {
		return nil, err
	}
	r, err = allSecret(u.Bundles)
	if err := add(r, false, err); err != nil {
		return nil, err
	}
	return p.turn(made, certificates, now)
}

// Nothing is the set of a process that lost all that it had.
func (p *Plain) Nothing(now time.Time) (*ads.Set, error) { return p.turn(nil, nil, now) }

// turn goes from what there was to what was made.
func (p *Plain) turn(made []*ads.Resource, certificates map[string]bool, now time.Time) (*ads.Set, error) {
	if p.had == nil {
		p.had, p.gone = map[string]bool{}, map[string]*ads.Resource{}
	}
	for name, certificate := range certificates {
		p.had[name] = certificate
		delete(p.gone, name)
	}
	for name, certificate := range p.had {
		if _, there := certificates[name]; there || p.gone[name] != nil {
			continue
		}
		untrusted := UntrustedAuthorities
		if certificate {
			untrusted = UntrustedSecret
		}
		r, err := untrusted(name, now)
		if err != nil {
			return nil, err
		}
		p.gone[name] = r
	}
	return ads.NewSet(append(made, slices.Collect(maps.Values(p.gone))...)...)
}

// allSecret has Envoy accept each trust domain's names by its own authorities alone, which a
// list of authorities cannot say.
func allSecret(bundles map[string][][]byte) (*ads.Resource, error) {
	config := &tlsv3.SPIFFECertValidatorConfig{}
	for _, id := range slices.Sorted(maps.Keys(bundles)) {
		td, err := spiffeid.TrustDomainFromString(id)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", NameAll, err)
		}
		config.TrustDomains = append(config.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{
			Name: td.Name(), TrustBundle: inline(encodePEM("CERTIFICATE", bundles[id]...)),
		})
	}
	packed, err := anypb.New(config)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", NameAll, err)
	}
	return newSecret(&tlsv3.Secret{
		Name: NameAll,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			CustomValidatorConfig: &corev3.TypedExtensionConfig{Name: "envoy.tls.cert_validator.spiffe", TypedConfig: packed},
		}},
	})
}
