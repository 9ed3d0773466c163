package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

// reservation is the right to sign one certificate once: its record is durable.
// Only reserve makes one.
type reservation struct {
	*linted
	record   Record
	redeemed atomic.Bool
}

// signed is a certificate that nobody has verified yet. Only sign makes one.
type signed struct {
	*reservation
	der []byte
}

// verified is a certificate that may be marked issued. Only verify makes one.
type verified struct {
	*signed
	chain [][]byte
}

// errRedeemed cannot happen: a stage ran twice.
var errRedeemed = errors.New("internal error: a reservation was used twice")

// sign redeems a reservation. What is signed are the very bytes that were linted,
// and they are the ones that were recorded.
func sign(r *reservation) (*signed, error) {
	if r.redeemed.Swap(true) {
		return nil, errRedeemed
	}
	if digest := sha256.Sum256(r.tbs); !bytes.Equal(r.record.TBS, digest[:]) || r.record.Kind != KindReserved || r.record.Sequence == 0 {
		return nil, fmt.Errorf("internal error: %s is not what was reserved", r.id)
	}
	der, err := signTBS(r.tbs, r.by.key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", r.id, err)
	}
	return &signed{reservation: r, der: der}, nil
}

// encode is the only call of x509.CreateCertificate for leaves, and nothing is
// signed in it: the TBSCertificate is taken on its way to the key. The parent is
// reduced to what a leaf takes from it.
func encode(t, issuer *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	parent := &x509.Certificate{RawSubject: issuer.RawSubject, SubjectKeyId: issuer.SubjectKeyId}
	key := &notSigning{public: issuer.PublicKey}
	if _, err := x509.CreateCertificate(nil, t, parent, pub, key); !errors.Is(err, errNotSigning) {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return key.message, nil
}

// notSigning stands where a key is asked for: it keeps what it should have signed.
type notSigning struct {
	public  crypto.PublicKey
	message []byte
}

var errNotSigning = errors.New("internal error: this key signs nothing")

// Public implements crypto.Signer.
func (n *notSigning) Public() crypto.PublicKey { return n.public }

// Sign implements crypto.Signer. A digest is nothing to keep.
func (n *notSigning) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("internal error: asked to sign a digest")
}

// SignMessage implements crypto.MessageSigner.
func (n *notSigning) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	n.message = message
	return nil, errNotSigning
}

// signTBS makes a certificate of a TBSCertificate.
func signTBS(tbs []byte, key crypto.Signer) ([]byte, error) {
	digest := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return join(tbs, signature)
}

// join is RFC 5280 4.1: tbsCertificate, signatureAlgorithm, signatureValue. That
// the algorithm is the one inside is checked whenever the outcome is parsed.
func join(tbs, signature []byte) ([]byte, error) {
	return asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		pkix.AlgorithmIdentifier{Algorithm: oidECDSAWithSHA256},
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
}

var oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2} // RFC 5758 3.2: no parameters

// verify reads the certificate as a peer will and compares it with what was
// linted, before anybody sees it.
//
// The first leaf of an issuing certificate is verified up to the root. That the
// root signed the issuing certificate does not change after that (verifyIssuing
// sees to it that it never outlives the root): those that follow end at the
// issuing certificate, which is itself held to its validity, its constraints and
// X509-SVID each time.
func (a *Authority) verify(s *signed, now time.Time) (*verified, error) {
	leaf, err := x509.ParseCertificate(s.der)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", s.id, err)
	}
	if !bytes.Equal(leaf.RawTBSCertificate, s.tbs) {
		return nil, fmt.Errorf("internal error: %s is not what was linted", s.id)
	}
	path, roots := []*x509.Certificate{leaf, s.by.cert}, a.roots
	if a.chainVerified.Load() == s.by {
		path, roots = path[:1], s.by.pool
	}
	id, err := identity.VerifyChain(path, a.td, roots, now, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", s.id, err)
	}
	if id != s.id {
		return nil, fmt.Errorf("internal error: a certificate for %s says %s", s.id, id)
	}
	a.chainVerified.Store(s.by)
	return &verified{signed: s, chain: [][]byte{s.der, s.by.cert.Raw}}, nil
}

func id2urls(id spiffeid.ID) []*url.URL { return []*url.URL{id.URL()} }
