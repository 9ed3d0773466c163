package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
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

// sign redeems a reservation. The key is bound to the digest that was linted and
// recorded: should the encoder produce other bytes this time, nothing is signed.
func sign(r *reservation) (*signed, error) {
	if r.redeemed.Swap(true) {
		return nil, errRedeemed
	}
	if !bytes.Equal(r.record.TBS, r.digest[:]) || r.record.Kind != KindReserved || r.record.Sequence == 0 {
		return nil, fmt.Errorf("internal error: %s is not what was reserved", r.id)
	}
	der, err := create(r.template, r.by.cert, r.key, &boundKey{key: r.by.key, digest: r.digest})
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", r.id, err)
	}
	return &signed{reservation: r, der: der}, nil
}

// create is the only call of x509.CreateCertificate for leaves. The parent is
// reduced to what a leaf takes from it, since the key may be a throw-away one.
func create(t, issuer *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	parent := &x509.Certificate{
		RawSubject: issuer.RawSubject, SubjectKeyId: issuer.SubjectKeyId, PublicKey: key.Public(),
	}
	return x509.CreateCertificate(rand.Reader, t, parent, pub, key)
}

// boundKey signs one digest, once.
type boundKey struct {
	key    crypto.Signer
	digest [sha256.Size]byte
	used   bool
}

// Public is the issuing key's.
func (b *boundKey) Public() crypto.PublicKey { return b.key.Public() }

// Sign refuses every digest but the one it is bound to.
func (b *boundKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if b.used || opts.HashFunc() != crypto.SHA256 || !bytes.Equal(digest, b.digest[:]) {
		return nil, errors.New("internal error: what is to be signed is not what was linted")
	}
	b.used = true
	return b.key.Sign(rand, digest, opts)
}

// verify reads the certificate as a peer will and compares it with what was
// linted, before anybody sees it.
func (a *Authority) verify(s *signed, now time.Time) (*verified, error) {
	leaf, err := x509.ParseCertificate(s.der)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", s.id, err)
	}
	if !bytes.Equal(leaf.RawTBSCertificate, s.tbs) {
		return nil, fmt.Errorf("internal error: %s is not what was linted", s.id)
	}
	id, err := identity.VerifyChain([]*x509.Certificate{leaf, s.by.cert}, a.td, a.roots, now, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", s.id, err)
	}
	if id != s.id {
		return nil, fmt.Errorf("internal error: a certificate for %s says %s", s.id, id)
	}
	return &verified{signed: s, chain: [][]byte{s.der, s.by.cert.Raw}}, nil
}

func id2urls(id spiffeid.ID) []*url.URL { return []*url.URL{id.URL()} }
