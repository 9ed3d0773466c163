package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/internal/retry"
)

// again is when a renewal that failed is tried again.
var again = retry.Policy{First: time.Minute, Most: 10 * time.Minute}

// Authority is an opened authority: the issuing key ready to sign, the root key
// on disk, opened only to renew the issuing certificate. Where the root key is
// kept elsewhere, everything works until the issuing certificate ends.
type Authority struct {
	dir      string
	td       spiffeid.TrustDomain
	clock    func() time.Time
	log      *slog.Logger
	root     *x509.Certificate
	roots    *x509.CertPool
	rootSet  []byte
	password []byte // for renewals; the log never sees it
	check    bool   // it is only looked at: nothing is written

	issuing       atomic.Pointer[issuing]
	chainVerified atomic.Pointer[issuing] // a leaf of it was verified up to the root

	renewing sync.Mutex // one at a time; guards the following
	failed   int        // renewals in a row
	next     time.Time  // no renewal is tried before
}

// issuing is one issuing certificate with its key, immutable.
type issuing struct {
	cert   *x509.Certificate
	pool   *x509.CertPool // of cert alone
	key    crypto.Signer
	serial string
}

func newIssuingKey(cert *x509.Certificate, key crypto.Signer) *issuing {
	return &issuing{cert: cert, pool: identity.PoolOf(cert), key: key, serial: SerialText(cert.SerialNumber)}
}

// OpenAuthority opens what Init made and verifies it: the root set's signature,
// the issuing certificate's chain, that keys and certificates belong together.
// An issuing certificate in the second half of its life is renewed at once.
func OpenAuthority(dir string, password []byte, clock func() time.Time, log *slog.Logger) (*Authority, error) {
	a := &Authority{dir: dir, clock: clock, log: log, password: append([]byte(nil), password...)}
	if a.clock == nil {
		a.clock = time.Now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("open authority %s: %w", dir, err)
	}
	return a, nil
}

func (a *Authority) open() error {
	content, err := readPrivate(filepath.Join(a.dir, rootCertFile))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("it must already exist: %w", err)
		}
		return err
	}
	if a.root, err = parseCert(rootCertFile, content); err != nil {
		return err
	}
	if err := a.openRootSet(); err != nil {
		return err
	}
	now := a.clock()
	if !readable(a.root) && !a.check {
		if err := a.resignRoot(now); err != nil {
			return err
		}
	}
	content, err = readPrivate(filepath.Join(a.dir, issuingFile))
	if err != nil {
		return err
	}
	cert, err := parseCert(issuingFile, content)
	if err != nil {
		return err
	}
	key, err := openKey(issuingFile, content, a.password, cert)
	if err != nil {
		return err
	}
	a.issuing.Store(newIssuingKey(cert, key))
	if a.check { // an opening would renew it where that is due, and go on with it where that fails until it ends
		var ended error
		if now.After(cert.NotAfter) {
			if _, err := a.rootKey(); err != nil {
				ended = fmt.Errorf("the issuing certificate ended at %s, and the root key that renews it cannot be had: %w: have %s in %s for one start",
					plain.UTC(cert.NotAfter), err, rootKeyFile, a.dir)
			}
		}
		return errors.Join(ended, verifyIssuing(a.td, a.root, a.issuing.Load()))
	}
	cur, err := a.current(now)
	if err != nil && !now.Before(cert.NotBefore) { // a clock that is behind stops issuance, not the opening
		return err
	}
	if err == nil && readable(a.root) && !readable(cur.cert) {
		if cur, err = a.renew(now); err != nil {
			return err
		}
		a.issuing.Store(cur)
	}
	return verifyIssuing(a.td, a.root, cur)
}

// openRootSet holds the root set to being signed by the root and naming it.
func (a *Authority) openRootSet() error {
	doc, err := readPrivate(filepath.Join(a.dir, rootSetFile))
	if err != nil {
		return err
	}
	pin, err := hashKey(a.root.PublicKey)
	if err != nil {
		return err
	}
	set, err := identity.ParseRootSet(doc, pin[:])
	if err != nil {
		return err
	}
	for _, r := range set.Roots {
		if r.Equal(a.root) {
			a.td, a.rootSet, a.roots = set.TrustDomain, doc, set.Pool()
			return nil
		}
	}
	return a.adoptRoot(set, doc)
}

// TrustDomain that the authority signs for, and no other.
func (a *Authority) TrustDomain() spiffeid.TrustDomain { return a.td }

// RootSet is the signed root set document.
func (a *Authority) RootSet() []byte { return append([]byte(nil), a.rootSet...) }

// Issuing is the issuing certificate in use. It is shared: do not change it.
func (a *Authority) Issuing() *x509.Certificate { return a.issuing.Load().cert }

// life is the nominal life of an issuing certificate.
func (a *Authority) life() time.Duration {
	c := a.Issuing()
	return c.NotAfter.Sub(c.NotBefore) - backdate
}

// current returns what to sign with, renewed if the second half of its life has
// begun. While one caller renews, others go on with the old one; when renewal
// fails, all do, and it is tried again after a while.
func (a *Authority) current(now time.Time) (*issuing, error) {
	cur := a.issuing.Load()
	if now.Before(halfLife(cur.cert)) {
		return cur, usable(cur, now)
	}
	if a.renewing.TryLock() {
		defer a.renewing.Unlock()
		// Another caller may have renewed since the pointer was loaded.
		if cur = a.issuing.Load(); now.Before(halfLife(cur.cert)) || now.Before(a.next) {
			return cur, usable(cur, now)
		}
		next, err := a.renew(now)
		if err == nil {
			a.issuing.Store(next)
			a.failed = 0
			a.log.Info("issuing certificate renewed", slog.String("serial", next.serial), slog.Time("not_after", next.cert.NotAfter))
			return next, nil
		}
		a.failed++
		a.next = now.Add(again.Next(a.failed, err))
		a.log.Error("issuing certificate not renewed", slog.Any("err", err), slog.Time("not_after", cur.cert.NotAfter))
		if gone := usable(cur, now); gone != nil {
			return nil, errors.Join(gone, err)
		}
	}
	return cur, usable(cur, now)
}

func halfLife(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}

// usable reports whether a certificate is valid now: none is signed with one that
// is not.
func usable(i *issuing, now time.Time) error {
	if c := i.cert; now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return fmt.Errorf("%w: it is %s, outside the issuing certificate's %s to %s", ErrClock,
			plain.UTC(now), plain.UTC(c.NotBefore), plain.UTC(c.NotAfter))
	}
	return nil
}

// renew makes a new issuing key and certificate and puts them in place on disk.
func (a *Authority) renew(now time.Time) (*issuing, error) {
	rootKey, err := a.rootKey()
	if err != nil {
		return nil, fmt.Errorf("renew the issuing certificate: %w", err)
	}
	next, bundle, err := makeIssuing(a.td, a.root, rootKey, a.password, now.Truncate(time.Second), a.life())
	if err != nil {
		return nil, fmt.Errorf("renew the issuing certificate: %w", err)
	}
	if err := verifyIssuing(a.td, a.root, next); err != nil {
		return nil, fmt.Errorf("renew the issuing certificate: %w", err)
	}
	if err := replaceFile(filepath.Join(a.dir, issuingFile), bundle); err != nil {
		return nil, fmt.Errorf("renew the issuing certificate: %w", err)
	}
	return next, nil
}

// rootKey opens the root's key for one use.
func (a *Authority) rootKey() (crypto.Signer, error) {
	content, err := readPrivate(filepath.Join(a.dir, rootKeyFile))
	if err != nil {
		return nil, err
	}
	return openKey(rootKeyFile, content, a.password, a.root)
}

// makeIssuing makes an issuing key and certificate, and the file of both.
func makeIssuing(td spiffeid.TrustDomain, root *x509.Certificate, rootKey crypto.Signer, password []byte, now time.Time, life time.Duration) (*issuing, []byte, error) {
	key, block, err := newKey(issuingFile, password)
	if err != nil {
		return nil, nil, err
	}
	cert, err := newIssuing(td, root, rootKey, key.Public(), now, life)
	if err != nil {
		return nil, nil, err
	}
	return newIssuingKey(cert, key), append(certPEM(cert.Raw), pem.EncodeToMemory(block)...), nil
}

func rootsOf(certs ...*x509.Certificate) []*x509.Certificate { return certs }
