package ca_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
	"signet.example/identity"
)

// initialize copies an authority's folder that was made once.
func initialize(t *testing.T) string {
	t.Helper()
	made, err := madeOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range made.files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInitMakesAPrivateFolderOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "ca")
	if err := ca.Init(dir, td, password, noon); err != nil {
		t.Fatal(err)
	}
	before := map[string][]byte{}
	err := filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %#o", path, info.Mode().Perm())
		}
		if !d.IsDir() {
			before[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range before {
		if bytes.Contains(content, []byte("PRIVATE KEY")) && !bytes.Contains(content, []byte("BEGIN ENCRYPTED PRIVATE KEY")) {
			t.Errorf("%s has an unencrypted key", path)
		}
	}
	if err := ca.Init(dir, td, password, noon); !errors.Is(err, ca.ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	for path, content := range before {
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s was changed", path)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".ca-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInitRefusesWhatCannotBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	for _, name := range []string{"10.0.0.1", "a..b", ".a"} {
		bad, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := ca.Init(dir, bad, password, noon); err == nil {
			t.Errorf("trust domain %q was taken", name)
		}
	}
	for name, err := range map[string]error{
		"no trust domain":                ca.Init(dir, spiffeid.TrustDomain{}, password, noon),
		"an empty password":              ca.Init(dir, td, nil, noon),
		"a root below two issuing lives": ca.InitWith(dir, td, password, noon, ca.Options{Root: time.Hour, Issuing: time.Hour}),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}

func TestInitWorksForOddButValidNames(t *testing.T) {
	for _, name := range []string{"localhost", "a_b.example"} {
		if err := ca.Init(filepath.Join(t.TempDir(), "ca"), spiffeid.RequireTrustDomainFromString(name), password, noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheAuthorityIsWhatItsProfileSays(t *testing.T) {
	for confined, a := range map[bool]*ca.Authority{false: newWorld(t, ca.Profiles{}).authority, true: newConfined(t)} {
		t.Run(fmt.Sprintf("URIs confined %t", confined), func(t *testing.T) { checkProfile(t, a, confined) })
	}
}

func checkProfile(t *testing.T, a *ca.Authority, confined bool) {
	t.Helper()
	set, err := identity.ParseRootSet(a.RootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if set.Number != 1 || len(set.Roots) != 1 || set.TrustDomain != td {
		t.Errorf("root set %+v", set)
	}
	root, issuing := set.Roots[0], a.Issuing()
	if got := root.NotAfter.Sub(noon); got != 10*365*24*time.Hour {
		t.Errorf("root lives %s", got)
	}
	if got := issuing.NotAfter.Sub(noon); got != 7*24*time.Hour {
		t.Errorf("issuing certificate lives %s", got)
	}
	if root.MaxPathLen != 1 || issuing.MaxPathLen != 0 || !issuing.MaxPathLenZero {
		t.Errorf("path lengths %d and %d", root.MaxPathLen, issuing.MaxPathLen)
	}
	for _, c := range []*x509.Certificate{root, issuing} {
		if !c.IsCA || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage) > 0 ||
			len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://mesh.example" {
			t.Errorf("%s: profile", c.Subject)
		}
		critical := false
		for _, e := range c.Extensions {
			critical = critical || (e.Id.Equal([]int{2, 5, 29, 30}) && e.Critical)
		}
		var uris, dns []string
		if confined {
			uris = []string{"mesh.example"}
		}
		if c != root { // entries may have DNS names one day, and a root lives for ten years
			dns = []string{""}
		}
		if !critical || !slices.Equal(c.PermittedURIDomains, uris) || !slices.Equal(c.ExcludedDNSDomains, dns) ||
			!slices.Equal(c.PermittedEmailAddresses, []string{"none.invalid"}) || len(c.ExcludedEmailAddresses) > 0 || len(c.ExcludedIPRanges) != 2 {
			t.Errorf("%s: name constraints: URIs %q, DNS %q, mail %q %q, addresses %v",
				c.Subject, c.PermittedURIDomains, c.ExcludedDNSDomains, c.PermittedEmailAddresses, c.ExcludedEmailAddresses, c.ExcludedIPRanges)
		}
	}
}

func TestOpenRefusesADamagedAuthority(t *testing.T) {
	dir := initialize(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := ca.Init(other, td, password, noon); err != nil {
		t.Fatal(err)
	}
	at := func() time.Time { return noon }
	if _, err := ca.OpenAuthority(dir, []byte("wrong"), at, nil); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := ca.OpenAuthority(dir+"-none", password, at, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for _, name := range []string{"root.crt", "root-set", "issuing.pem"} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		for what, content := range map[string][]byte{"another's": foreign, "empty": nil, "cut": good[:len(good)/2]} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ca.OpenAuthority(dir, password, at, nil); err == nil {
				t.Errorf("%s %s was taken", what, name)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []os.FileMode{0o604, 0o640, 0o620} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := ca.OpenAuthority(dir, password, at, nil); err == nil || !strings.Contains(err.Error(), "lets others in") {
				t.Errorf("%s of mode %#o: %v", name, mode, err)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ca.OpenAuthority(dir, password, at, nil); err != nil {
		t.Errorf("the undamaged one: %v", err)
	}
}

func TestTheIssuingCertificateIsRenewedAtHalfItsLife(t *testing.T) {
	dir := initialize(t)
	c := &clock{now: noon}
	a, err := ca.OpenAuthority(dir, password, c.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := openLog(t, ca.LogPath(dir))
	w := &world{authority: a, log: l, clock: c, issuer: ca.NewIssuer(a, l, ca.Profiles{})}
	first := w.issue(t, request(t, "/shop/web"))[1]
	c.Set(noon.Add(83 * time.Hour))
	if now := w.issue(t, request(t, "/shop/web"))[1]; !now.Equal(first) {
		t.Error("renewed before half its life")
	}
	c.Set(noon.Add(85 * time.Hour))
	second := w.issue(t, request(t, "/shop/web"))[1]
	if second.Equal(first) || !second.NotAfter.Equal(c.Now().Add(7*24*time.Hour)) {
		t.Errorf("not renewed: ends %s", second.NotAfter)
	}
	var authorities int
	for _, r := range w.records(t) {
		if r.Kind == ca.KindAuthority {
			authorities++
		}
	}
	if authorities != 3 {
		t.Errorf("%d authorities recorded, want root and two issuing certificates", authorities)
	}
	again, err := ca.OpenAuthority(dir, password, c.Now, nil)
	if err != nil || !again.Issuing().Equal(second) {
		t.Errorf("reopened: %v", err)
	}
}

func TestWithoutTheRootKeyIssuanceGoesOnToTheEndOfTheIssuingCertificate(t *testing.T) {
	dir := initialize(t)
	c := &clock{now: noon}
	var logged bytes.Buffer
	a, err := ca.OpenAuthority(dir, password, c.Now, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, ca.LogPath(dir))
	w := &world{authority: a, log: l, clock: c, issuer: ca.NewIssuer(a, l, ca.Profiles{})}
	c.Set(noon.Add(6 * 24 * time.Hour))
	w.issue(t, request(t, "/shop/web"))
	if !strings.Contains(logged.String(), "not renewed") || strings.Contains(logged.String(), string(password)) {
		t.Errorf("log: %s", logged.String())
	}
	// A leaf that would outlive its issuer is refused, not silently shortened.
	c.Set(noon.Add(7*24*time.Hour - 30*time.Minute))
	if err := w.issuer.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; err == nil || errors.Is(err, ca.ErrInvalid) {
		t.Errorf("beyond the issuer: %v", err)
	}
	c.Set(noon.Add(8 * 24 * time.Hour))
	if err := w.issuer.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; err == nil {
		t.Error("signed with an ended certificate")
	}
}

func TestARenewalThatFailsIsTriedAgainSoonThenLessOftenAndAtOnceAfterItSucceeded(t *testing.T) {
	dir := initialize(t)
	c := &clock{now: noon}
	var logged bytes.Buffer
	a, err := ca.OpenAuthority(dir, password, c.Now, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "root.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, ca.LogPath(dir))
	w := &world{authority: a, log: l, clock: c, issuer: ca.NewIssuer(a, l, ca.Profiles{})}
	var tries []int // minutes
	start := noon.Add(4 * 24 * time.Hour)
	for minute := range 40 {
		logged.Reset()
		c.Set(start.Add(time.Duration(minute) * time.Minute))
		w.issue(t, request(t, "/shop/web"))
		if strings.Contains(logged.String(), "not renewed") {
			tries = append(tries, minute)
		}
	}
	if want := []int{0, 1, 3, 7, 15, 25, 35}; !slices.Equal(tries, want) {
		t.Errorf("it is tried after %d minutes, want %d", tries, want)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	c.Set(start.Add(45 * time.Minute))
	if now := w.issue(t, request(t, "/shop/web"))[1]; !now.NotAfter.After(start.Add(6 * 24 * time.Hour)) {
		t.Errorf("it is not renewed when the key is back: it ends %s", now.NotAfter)
	}
}

func TestAClockBehindOpensButDoesNotSign(t *testing.T) {
	dir := initialize(t)
	c := &clock{now: noon.Add(-time.Hour)}
	a, err := ca.OpenAuthority(dir, password, c.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := ca.NewIssuer(a, openLog(t, ca.LogPath(dir)), ca.Profiles{})
	if err := i.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; !errors.Is(err, ca.ErrClock) {
		t.Errorf("err = %v", err)
	}
}

func TestAnUnencryptedKeyIsRefused(t *testing.T) {
	dir := initialize(t)
	path := filepath.Join(dir, "issuing.pem")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := pem.Decode(content)
	plain := append(pem.EncodeToMemory(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	if err := os.WriteFile(path, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.OpenAuthority(dir, password, func() time.Time { return noon }, nil); err == nil {
		t.Error("taken")
	}
}
