package ca

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/test/parts"
)

// ForTestClone is the authority with another clock, without deriving keys again.
func (a *Authority) ForTestClone(clock func() time.Time) *Authority {
	c := &Authority{
		dir: a.dir, td: a.td, clock: clock, log: a.log, root: a.root, roots: a.roots,
		rootSet: a.rootSet, password: a.password,
	}
	c.issuing.Store(a.issuing.Load())
	return c
}

// ForTestKey is the issuing key, as a thief would have it.
func (a *Authority) ForTestKey() crypto.Signer { return a.issuing.Load().key }

// ForTestNewLog is the content of an empty log.
func ForTestNewLog(td spiffeid.TrustDomain, now time.Time) ([]byte, error) {
	log, _, err := newLogFile(td, now)
	return log, err
}

// ForTestDisk is what a Log writes on.
type ForTestDisk = disk

// ForTestStartLog opens a log on another disk than a file.
func ForTestStartLog(file ForTestDisk, r io.Reader) (*Log, error) {
	l, err := recoverLog("test", file, r)
	if err == nil {
		l.start()
	}
	return l, err
}

// ForTestSignTwice uses a reservation twice, and one of other bytes than were linted.
func (i *Issuer) ForTestSignTwice(reserved Record, req Request, now time.Time) (first, second, other error) {
	c, err := i.check(req)
	if err != nil {
		return err, err, err
	}
	l, err := i.lint(c, i.authority.issuing.Load(), now)
	if err != nil {
		return err, err, err
	}
	digest := sha256.Sum256(l.tbs)
	reserved.Kind, reserved.Sequence, reserved.TBS = KindReserved, 1, digest[:]
	r := &reservation{linted: l, record: reserved}
	_, first = sign(r)
	_, second = sign(r)
	l2 := *l
	l2.tbs = bytes.Clone(l.tbs)
	l2.tbs[len(l.tbs)-1] ^= 1
	_, other = sign(&reservation{linted: &l2, record: reserved})
	return first, second, other
}

// ForTestParse is the CSR parser.
func ForTestParse(der []byte, allowRSA bool) error {
	_, err := parseCSR(der, allowRSA)
	return err
}

// ForTestLockWait makes OpenLog give up sooner.
func ForTestLockWait(d time.Duration) (restore func()) {
	before := lockWait
	lockWait = d
	return func() { lockWait = before }
}

// ForTestPublicKey is what a key is held to.
func ForTestPublicKey(key crypto.PublicKey) error { return checkPublicKey(key, true) }

// ForTestFastKeys encrypts keys with one round of PBKDF2.
func ForTestFastKeys() (restore func()) {
	before := sealKey
	sealKey = parts.SealFast
	return func() { sealKey = before }
}

// ForTestRecover reads a log's content as OpenLog does, without starting anything.
// whole is what is left once an incomplete last record is cut off or ended.
func ForTestRecover(content []byte) (whole []byte, last uint64, err error) {
	d := &sliceDisk{content: bytes.Clone(content)}
	l := &Log{file: d, ended: true, ledger: newLedger()}
	if err := l.recover(bufio.NewReaderSize(bytes.NewReader(content), maxLine)); err != nil {
		return nil, 0, err
	}
	err = l.repair()
	return d.content, l.ledger.sequence, err
}

type sliceDisk struct {
	disk
	content []byte
}

func (d *sliceDisk) WriteAt(p []byte, off int64) (int, error) {
	d.content = append(d.content[:off], p...)
	return len(p), nil
}

func (d *sliceDisk) Truncate(size int64) error {
	d.content = d.content[:size]
	return nil
}

func (d *sliceDisk) Sync() error { return nil }

// ForTestSeal makes a log of lines whose JSON comes from outside but whose chain
// holds, as one who can write the file would.
func ForTestSeal(bodies [][]byte) []byte {
	content, hash, _ := seal(nil, chainStart, header{Format: logFormat, Origin: "x", TrustDomain: "mesh.example"})
	for _, body := range bodies {
		if len(body) < 2 {
			continue
		}
		hash = chain(hash, body)
		content = append(content, body[:len(body)-1]...)
		content = append(content, hashPrefix...)
		content = hex.AppendEncode(content, hash[:])
		content = append(content, hashSuffix...)
		content = append(content, '\n')
	}
	return content
}

// ForTestLint lints a leaf whose template went wrong.
func (i *Issuer) ForTestLint(req Request, now time.Time, spoil func(*x509.Certificate)) error {
	c, err := i.check(req)
	if err != nil {
		return err
	}
	by := i.authority.issuing.Load()
	t, err := leafTemplate(c.id, i.prefix, by.cert, now, c.lifetime)
	if err != nil {
		return err
	}
	spoil(t)
	_, err = i.lintTemplate(c, t, by)
	return err
}

// ForTestSetKey gives the authority another issuing key than its certificate's.
func (a *Authority) ForTestSetKey(key crypto.Signer) {
	next := *a.issuing.Load()
	next.key = key
	a.issuing.Store(&next)
}

// ForTestSetIssuing gives the authority another issuing certificate and its key.
func (a *Authority) ForTestSetIssuing(cert *x509.Certificate, key crypto.Signer) {
	a.issuing.Store(newIssuingKey(cert, key))
}

// ForTestOutliving holds an issuing certificate to a root of the same name and
// key that ends before or begins after it.
func ForTestOutliving(td spiffeid.TrustDomain, now time.Time, rootFrom time.Time, rootLife time.Duration) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	long, err := newRoot(td, key, now, Options{Root: 24 * time.Hour})
	if err != nil {
		return err
	}
	cert, err := newIssuing(td, long, key, key.Public(), now, 2*time.Hour)
	if err != nil {
		return err
	}
	root, err := newRoot(td, key, rootFrom, Options{Root: rootLife})
	if err != nil {
		return err
	}
	return verifyIssuing(td, root, newIssuingKey(cert, key))
}
