package ca_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"signet.example/ca"
	"signet.example/identity"
	"signet.example/test/parts"
)

// firstPassword and firstMade are those of testdata/first-version, which the
// first version made.
var (
	firstPassword = []byte("a test password, of no use")
	firstMade     = time.Date(2026, 11, 28, 15, 30, 0, 0, time.UTC)
)

// firstFiles are those files, with the keys deciphered once: each test opens them
// again and again.
var firstFiles = sync.OnceValues(func() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range []string{"root.key", "root.crt", "root-set", "issuing.pem", "issuance.log"} {
		content, err := os.ReadFile(filepath.Join("testdata", "first-version", name))
		if err == nil && (name == "root.key" || name == "issuing.pem") {
			content, err = parts.FastKey(content, firstPassword)
		}
		if err != nil {
			return nil, err
		}
		files[name] = content
	}
	return files, nil
})

func firstVersion(t *testing.T) string {
	t.Helper()
	files, err := firstFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func rootsOf(t *testing.T, doc, pin []byte) identity.RootSet {
	t.Helper()
	set, err := identity.ParseRootSet(doc, pin)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func firstRoots(t *testing.T) identity.RootSet {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("testdata", "first-version", "root-set"))
	if err != nil {
		t.Fatal(err)
	}
	return rootsOf(t, doc, nil)
}

// Old agents have the pin and root set 1, and Envoys its root: what is issued
// from now on must verify by it, and by what they are sent next.
func TestARootOfTheFirstVersionIsSignedAgainByItsOwnKey(t *testing.T) {
	dir, old := firstVersion(t), firstRoots(t)
	open := func() (*ca.Authority, error) {
		return ca.OpenAuthority(dir, firstPassword, func() time.Time { return firstMade }, nil)
	}
	a, err := open()
	if err != nil {
		t.Fatal(err)
	}
	set := rootsOf(t, a.RootSet(), old.Pin())
	if set.Number != 2 || len(set.Roots) != 1 || set.TrustDomain != old.TrustDomain {
		t.Fatalf("root set %+v", set)
	}
	before, root := old.Roots[0], set.Roots[0]
	if !bytes.Equal(root.RawSubjectPublicKeyInfo, before.RawSubjectPublicKeyInfo) || !bytes.Equal(root.RawSubject, before.RawSubject) ||
		!root.NotAfter.Equal(before.NotAfter) || root.SerialNumber.Cmp(before.SerialNumber) == 0 {
		t.Errorf("the root is another one: %s until %s", root.Subject, root.NotAfter)
	}
	for _, c := range []*x509.Certificate{root, a.Issuing()} {
		// What was confined stays confined: nothing is loosened by an upgrade.
		if len(c.ExcludedEmailAddresses) > 0 || len(c.PermittedURIDomains) != 1 {
			t.Errorf("%s: excluded mail %q, URIs %q", c.Subject, c.ExcludedEmailAddresses, c.PermittedURIDomains)
		}
	}
	oldIssuing := oldIssuing(t)
	for name, roots := range map[string]identity.RootSet{"the old root": old, "the new root": set} {
		for what, issuing := range map[string]*x509.Certificate{"old": oldIssuing, "new": a.Issuing()} {
			if _, err := issuing.Verify(x509.VerifyOptions{Roots: roots.Pool(), CurrentTime: firstMade, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
				t.Errorf("the %s issuing certificate under %s: %v", what, name, err)
			}
		}
		log := openLog(t, newLog(t))
		result := ca.NewIssuer(a, log, ca.Profiles{}).Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0]
		if result.Err != nil {
			t.Fatal(result.Err)
		}
		chain, err := certificates(result.Chain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := identity.VerifyChain(chain, old.TrustDomain, roots.Pool(), firstMade, x509.ExtKeyUsageClientAuth); err != nil {
			t.Errorf("a new leaf under %s: %v", name, err)
		}
	}
	again, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.RootSet(), a.RootSet()) || !again.Issuing().Equal(a.Issuing()) {
		t.Error("opened again, it was signed again")
	}
}

func certificates(ders [][]byte) ([]*x509.Certificate, error) {
	return x509.ParseCertificates(bytes.Join(ders, nil))
}

func oldIssuing(t *testing.T) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "first-version", "issuing.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return pemCertificate(t, content)
}

func TestARootThatWasSignedAgainIsAdoptedAfterACrash(t *testing.T) {
	dir := firstVersion(t)
	at := func() time.Time { return firstMade }
	first, err := ca.OpenAuthority(dir, firstPassword, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The crash: the root set is the new one, the certificate is not.
	old, err := os.ReadFile(filepath.Join("testdata", "first-version", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root.crt"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := ca.OpenAuthority(dir, firstPassword, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.RootSet(), first.RootSet()) {
		t.Error("the root set is another one")
	}
	content, err := os.ReadFile(filepath.Join(dir, "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if !pemCertificate(t, content).Equal(rootsOf(t, first.RootSet(), nil).Roots[0]) {
		t.Error("root.crt is not the root set's")
	}
}

// Where the root's key is kept elsewhere the first version's root goes on.
func TestARootWithoutItsKeyStaysAsItIs(t *testing.T) {
	dir := firstVersion(t)
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	a, err := ca.OpenAuthority(dir, firstPassword, func() time.Time { return firstMade }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set := rootsOf(t, a.RootSet(), nil); set.Number != 1 || !a.Issuing().Equal(oldIssuing(t)) {
		t.Errorf("root set %d", set.Number)
	}
	if _, err := os.Stat(filepath.Join(dir, "root.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a root key was made")
	}
}

func pemCertificate(t *testing.T, content []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatal("no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
