package issuance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/identity"
)

var testDomain = spiffeid.RequireTrustDomainFromString("mesh.example")

// testCA is a root of testDomain.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{t: t, key: newKey(t)}
	ca.cert = ca.sign("", time.Hour, ca.key)
	return ca
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate, of a CA where the path is empty.
func (ca *testCA) sign(path string, lifetime time.Duration, key any) *x509.Certificate {
	ca.t.Helper()
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		key = k.Public()
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lifetime), BasicConstraintsValid: true,
		URIs: []*url.URL{{Scheme: "spiffe", Host: testDomain.Name(), Path: path}}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if path == "" {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	}
	parent := ca.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		ca.t.Fatal(err)
	}
	return c
}

// says is what a signer of this CA says of its authority, the root set signed by key.
func (ca *testCA) says(number uint64, key *ecdsa.PrivateKey) *api.AuthorityResponse {
	ca.t.Helper()
	set, err := identity.RootSet{TrustDomain: testDomain, Number: number, Roots: []*x509.Certificate{ca.cert}}.Sign(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return &api.AuthorityResponse{TrustDomain: testDomain.Name(), SignedRootSet: set, Issuing: ca.cert.Raw}
}

// answers is a signer of which only the authority is asked.
type answers []*api.AuthorityResponse

func (a *answers) Authority(context.Context) (*api.AuthorityResponse, error) {
	if len(*a) == 0 {
		return nil, errors.New("it does not answer")
	}
	next := (*a)[0]
	*a = (*a)[1:]
	return next, nil
}

var nowhere = slog.New(slog.DiscardHandler)

func TestAnotherAuthorityIsNotTakenForTheSignersOwn(t *testing.T) {
	ca, key := newCA(t), newKey(t)
	own := ca.says(1, key)
	a := NewAuthority(&answers{own, ca.says(1, newKey(t)), own}, func() {}, nowhere) // the same roots, and somebody else vouches for them
	var errs [3]error
	for i := range errs {
		errs[i] = a.Load(t.Context())
	}
	if errs[0] != nil || !errors.Is(errs[1], identity.ErrPin) || errs[2] != nil {
		t.Errorf("the first, another and the first again: %v", errs)
	}
}

func TestRootsThatAreReplacedAreToldOfAndWhatDoesNotVerifyChangesNothing(t *testing.T) {
	ca, key := newCA(t), newKey(t)
	foreign := ca.says(3, key)
	foreign.TrustDomain = "other.example"
	elsewhere := ca.says(3, key)
	elsewhere.Issuing = newCA(t).cert.Raw
	changes := 0
	a := NewAuthority(&answers{ca.says(1, key), ca.says(1, key), ca.says(2, key), ca.says(1, key), elsewhere, foreign}, func() { changes++ }, nowhere)
	for i, want := range []struct {
		number  uint64
		changes int
		fails   bool
	}{{1, 0, false}, {1, 0, false}, {2, 1, false}, {2, 1, true}, {2, 1, true}, {2, 1, true}, {2, 1, true}} { // an older one, another's issuing certificate, another trust domain; the last is not answered
		err := a.Load(t.Context())
		if n := a.Roots().Set.Number; n != want.number || changes != want.changes || (err != nil) != want.fails {
			t.Errorf("answer %d: root set %d, %d changes, %v", i, n, changes, err)
		}
	}
	if b := a.Roots().Bundle(); b.GetNumber() != 2 || len(b.GetX509Authorities()) != 1 || string(b.GetSignedRootSet()) == "" {
		t.Errorf("agents are told %v", b)
	}
}

func TestARootSetOfTheSignersIsTakenWithinHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, key := newCA(t), newKey(t)
		var told strings.Builder
		changed := make(chan struct{}, 1)
		a := NewAuthority(&answers{ca.says(1, key), ca.says(2, key), ca.says(1, key), ca.says(1, key), ca.says(2, key)}, func() { changed <- struct{}{} }, slog.New(slog.NewTextHandler(&told, nil)))
		if err := a.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		begun := time.Now()
		<-changed
		if took := time.Since(begun); took > 30*time.Second || a.Roots().Set.Number != 2 {
			t.Errorf("after %s it is root set %d", took, a.Roots().Set.Number)
		}
		time.Sleep(time.Hour) // in which the signer does not answer
		if end := a.Roots().FirstEnd(); a.Roots().Set.Number != 2 || !end.Equal(ca.cert.NotAfter) {
			t.Errorf("what it said last is not true any more: root set %d until %s", a.Roots().Set.Number, end)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if refused, taken := strings.Count(told.String(), "authority refused"), strings.Count(told.String(), "authority taken again"); refused != 1 || taken != 1 {
			t.Errorf("an older root set has %d lines, and the end of it %d: %s", refused, taken, told.String())
		}
	})
}
