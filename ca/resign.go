package ca

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"signet.example/identity"
)

// resignRoot signs a root of the first version again, with its own key: its name
// constraints are ones that Java cannot parse. What it is stays, and so does the
// pin, which is the key's: certificates under the old root verify under the new
// one, and the other way round, so that nobody has to move at once. The next root
// set brings it to the agents.
//
// The root set is replaced first. A crash before the certificate follows is made
// good by adoptRoot at the next opening.
func (a *Authority) resignRoot(now time.Time) error {
	rootKey, err := a.rootKey()
	if errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("the root's name constraints are of a form that Java cannot parse; it cannot be signed again, since its key is not here",
			slog.String("key", filepath.Join(a.dir, rootKeyFile)))
		return nil
	}
	if err != nil {
		return fmt.Errorf("sign the root again: %w", err)
	}
	root, err := signRoot(a.td, rootKey, a.root.NotBefore, a.root.NotAfter, confinesURIs(a.root))
	if err != nil {
		return fmt.Errorf("sign the root again: %w", err)
	}
	if !bytes.Equal(root.RawSubject, a.root.RawSubject) || !bytes.Equal(root.SubjectKeyId, a.root.SubjectKeyId) {
		return errors.New("sign the root again: internal error: it came out under another name")
	}
	set, err := identity.ParseRootSet(a.rootSet, nil)
	if err != nil {
		return fmt.Errorf("sign the root again: %w", err)
	}
	set.Number++
	for i, r := range set.Roots {
		if r.Equal(a.root) {
			set.Roots[i] = root
		}
	}
	doc, err := set.Sign(rootKey)
	if err != nil {
		return fmt.Errorf("sign the root again: %w", err)
	}
	if err := replaceFile(filepath.Join(a.dir, rootSetFile), doc); err != nil {
		return fmt.Errorf("sign the root again: %w", err)
	}
	if err := a.useRoot(root, set, doc); err != nil {
		return fmt.Errorf("sign the root again: %w", err)
	}
	a.log.Info("the root was signed again, with name constraints that every TLS stack reads; its key and pin are what they were",
		slog.Uint64("root_set", set.Number), slog.Time("at", now))
	return nil
}

// adoptRoot takes the root that the set names in the place of root.crt, if it is
// the same authority: one key, one name.
func (a *Authority) adoptRoot(set identity.RootSet, doc []byte) error {
	i := slices.IndexFunc(set.Roots, func(r *x509.Certificate) bool {
		return bytes.Equal(r.RawSubjectPublicKeyInfo, a.root.RawSubjectPublicKeyInfo) && bytes.Equal(r.RawSubject, a.root.RawSubject)
	})
	if i < 0 {
		return errors.New("the root set does not name the root")
	}
	return a.useRoot(set.Roots[i], set, doc)
}

// useRoot writes a root and goes on with it.
func (a *Authority) useRoot(root *x509.Certificate, set identity.RootSet, doc []byte) error {
	if !a.check {
		if err := replaceFile(filepath.Join(a.dir, rootCertFile), certPEM(root.Raw)); err != nil {
			return err
		}
	}
	a.root, a.td, a.rootSet, a.roots = root, set.TrustDomain, doc, set.Pool()
	return nil
}
