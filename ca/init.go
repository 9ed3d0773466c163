package ca

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sys/unix"

	"signet.example/identity"
	"signet.example/internal/durable"
)

// Options of a new authority. The zero value works.
type Options struct {
	// Root and Issuing are the lifetimes of the signing certificates, counted from
	// now: 10 years and 7 days if zero.
	Root, Issuing time.Duration
	// ConfineURIs has the signing certificates name the trust domain as the only
	// host of permitted URIs, critical. Not every TLS stack can read that: see
	// docs/DEVIATIONS.md. It cannot be changed later.
	ConfineURIs bool
}

const (
	defaultRootLife    = 10 * 365 * 24 * time.Hour
	defaultIssuingLife = 7 * 24 * time.Hour
	// backdate is how far a peer's clock may be behind ours (D15).
	backdate = time.Minute
)

func (o Options) withDefaults() Options {
	if o.Root == 0 {
		o.Root = defaultRootLife
	}
	if o.Issuing == 0 {
		o.Issuing = defaultIssuingLife
	}
	return o
}

// Init makes an authority's folder: root and issuing key and certificate, root
// set number 1, and an empty issuance log. The folder appears whole or not at
// all; if there is one already, the error is ErrExists and nothing is changed.
func Init(dir string, td spiffeid.TrustDomain, password []byte, now time.Time) error {
	return InitWith(dir, td, password, now, Options{})
}

// InitWith is Init with other options than the default ones.
func InitWith(dir string, td spiffeid.TrustDomain, password []byte, now time.Time, o Options) error {
	if err := initialize(dir, td, password, now, o.withDefaults()); err != nil {
		return fmt.Errorf("make authority %s: %w", dir, err)
	}
	return nil
}

func initialize(dir string, td spiffeid.TrustDomain, password []byte, now time.Time, o Options) (err error) {
	switch {
	case td.IsZero():
		return errors.New("no trust domain")
	case len(password) == 0:
		return errors.New("the password is empty: keys are never written unencrypted")
	case o.Root < 2*o.Issuing:
		return fmt.Errorf("%w: root lives %s, less than two issuing certificates of %s", ErrConfig, o.Root, o.Issuing)
	}
	files, err := newFiles(td, password, now.Truncate(time.Second), o)
	if err != nil {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, ".ca-*") // 0700
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	for name, content := range files {
		if err := replaceFile(filepath.Join(temp, name), content); err != nil {
			return err
		}
	}
	// NOREPLACE: whatever is there stays, even an empty folder or a link.
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	if err != nil {
		return fmt.Errorf("put the folder in place: %w", err)
	}
	return durable.SyncDir(parent)
}

// newFiles makes everything in memory, so that nothing is written if a trust
// domain turns out to be impossible.
func newFiles(td spiffeid.TrustDomain, password []byte, now time.Time, o Options) (map[string][]byte, error) {
	rootKey, rootPEM, err := newKey(rootKeyFile, password)
	if err != nil {
		return nil, err
	}
	root, err := newRoot(td, rootKey, now, o)
	if err != nil {
		return nil, err
	}
	issuing, bundle, err := makeIssuing(td, root, rootKey, password, now, o.Issuing)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(verifyIssuing(td, root, issuing), rehearse(td, now, o)); err != nil {
		return nil, err
	}
	set := identity.RootSet{TrustDomain: td, Number: 1, Roots: rootsOf(root), Key: rootKey.Public()}
	doc, err := set.Sign(rootKey)
	if err != nil {
		return nil, err
	}
	log, mark, err := newLogFile(td, now)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		rootKeyFile:  pem.EncodeToMemory(rootPEM),
		rootCertFile: certPEM(root.Raw),
		rootSetFile:  doc,
		issuingFile:  bundle,
		logFile:      log,
		markFile:     mark,
	}, nil
}
