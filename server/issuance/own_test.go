package issuance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/identity"
)

// issuesBy signs whatever is asked for, with an hour's life, unless it is down.
type issuesBy struct {
	ca *testCA

	mu    sync.Mutex // guards the following
	down  bool
	asked []time.Time
}

func (i *issuesBy) isDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// times are when it was asked.
func (i *issuesBy) times() []time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.asked)
}

func (i *issuesBy) Issue(_ context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, time.Now())
	if i.down {
		return nil, errors.New("down")
	}
	var out []*api.SignResult
	for _, item := range items {
		csr, err := x509.ParseCertificateRequest(item.GetCsr())
		if err != nil {
			return nil, err
		}
		leaf := i.ca.sign(spiffeid.RequireFromString(item.GetSpiffeId()).Path(), item.GetLifetime().AsDuration(), csr.PublicKey)
		out = append(out, &api.SignResult{Chain: [][]byte{leaf.Raw}})
	}
	return out, nil
}

func ownOf(t *testing.T, issuer Issuer, roots ...*x509.Certificate) *Own {
	t.Helper()
	id, err := identity.ForServer(testDomain, "server")
	if err != nil {
		t.Fatal(err)
	}
	return NewOwn(OwnConfig{
		ID: id, Issuer: issuer, Roots: func() Roots { return Roots{Set: identity.RootSet{Roots: roots}} },
		Log: slog.New(slog.DiscardHandler), Clock: time.Now, Exchanged: func(tls.CurveID) {},
	})
}

func TestTheServersChainEndsWithTheRootThatAPinIsOf(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	issuer := &issuesBy{ca: ca}
	o := ownOf(t, issuer, other.cert, ca.cert)
	if _, err := o.TLSConfig().GetCertificate(nil); err == nil {
		t.Error("there is a certificate before one was issued")
	}
	if err := o.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := o.TLSConfig().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(first.Certificate); n != 2 || string(first.Certificate[1]) != string(ca.cert.Raw) {
		t.Errorf("a chain of %d that does not end with the root", n)
	}
	issuer.ca = newCA(t) // a root that nobody has a pin of
	if err := o.Renew(t.Context()); err == nil {
		t.Error("a chain that leads to none of the roots was taken")
	}
	if now, err := o.TLSConfig().GetCertificate(nil); err != nil || now != first {
		t.Errorf("what could not be renewed is not kept: %v", err)
	}
}

func TestTheServersOwnCertificateIsRenewedAtAFifthOfItsLifeAndTriedAgainSoonAndThenLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &issuesBy{ca: newCA(t)}
		o := ownOf(t, issuer, issuer.ca.cert)
		if err := o.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if len(issuer.times()) != 1 {
			t.Errorf("renewed after %v", time.Since(start))
		}
		issuer.isDown(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		tries := issuer.times()[1:]
		if at := tries[0].Sub(start); at < 11*time.Minute || at > 13*time.Minute {
			t.Errorf("the first is tried after %s", at)
		}
		if first, last := tries[1].Sub(tries[0]), tries[len(tries)-1].Sub(tries[len(tries)-2]); first != 5*time.Second || last != time.Minute {
			t.Errorf("it is tried again after %s, and in the end after %s", first, last)
		}
		issuer.isDown(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if left := time.Until(o.now.Load().Leaf.NotAfter); left < 57*time.Minute {
			t.Errorf("the certificate has %s left", left)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
