package sds

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ads"
)

// SVIDSecret makes the Secret that holds an X.509-SVID: a tls_certificate
// named by the SPIFFE ID itself, so that a configuration names whom it speaks
// as and not where a certificate lies. The chain is DER, leaf first.
func SVIDSecret(id spiffeid.ID, chain [][]byte, key crypto.PrivateKey) (*ads.Resource, error) {
	return CertificateSecret(id.String(), chain, key)
}

// CertificateSecret is SVIDSecret for a certificate that is named in another way.
func CertificateSecret(name string, chain [][]byte, key crypto.PrivateKey) (*ads.Resource, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("secret %s: the chain is empty", name)
	}
	if err := sameKey(chain[0], key); err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("secret %s: encode the key: %w", name, err)
	}
	return newSecret(&tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(encodePEM("CERTIFICATE", chain...)),
			PrivateKey:       inline(encodePEM("PRIVATE KEY", der)),
		}},
	})
}

// BundleSecret makes the Secret that holds a trust domain's authorities: a
// validation_context named by the trust domain's ID, "spiffe://td". It holds
// the trust anchors alone; whom to accept is said where it is used. The roots
// are DER.
func BundleSecret(td spiffeid.TrustDomain, roots [][]byte) (*ads.Resource, error) {
	return AuthoritiesSecret(td.IDString(), roots)
}

// AuthoritiesSecret is BundleSecret for authorities that are named in another way.
func AuthoritiesSecret(name string, roots [][]byte) (*ads.Resource, error) {
	// Envoy reads an empty trusted_ca as "do not verify": never make one.
	if len(roots) == 0 {
		return nil, fmt.Errorf("secret %s: the bundle is empty", name)
	}
	return newSecret(&tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(encodePEM("CERTIFICATE", roots...)),
		}},
	})
}

func newSecret(s *tlsv3.Secret) (*ads.Resource, error) {
	r, err := ads.NewResource(ads.SecretType, s.GetName(), s)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s.GetName(), err)
	}
	return r, nil
}

// sameKey refuses a certificate that is not for the key: Envoy would refuse
// the Secret, and the proxy would go on with the certificate before it.
func sameKey(leaf []byte, key crypto.PrivateKey) error {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("a %T cannot sign", key)
	}
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		return fmt.Errorf("parse the leaf: %w", err)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return errors.New("the leaf is for another key")
	}
	return nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func encodePEM(kind string, blocks ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range blocks {
		// A bytes.Buffer refuses nothing.
		_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
	}
	return b.Bytes()
}
