package ca

import (
	"crypto"
	"io"
	"math/big"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
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
	return newLogFile(td, now)
}

// ForTestDisk is what a Log writes on.
type ForTestDisk = disk

// ForTestStartLog opens a log on another disk than a file.
func ForTestStartLog(file ForTestDisk, r io.Reader) (*Log, error) { return startLog("test", file, r) }

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
	reserved.Kind, reserved.Sequence, reserved.TBS = KindReserved, 1, l.digest[:]
	r := &reservation{linted: l, record: reserved}
	_, first = sign(r)
	_, second = sign(r)
	changed := *l.template
	changed.SerialNumber = big.NewInt(7)
	l2 := *l
	l2.template = &changed
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
