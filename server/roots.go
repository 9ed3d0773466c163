package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/identity"
)

// rootSet is what the signer says of its authority, verified. Immutable.
type rootSet struct {
	identity.RootSet
	signed  []byte
	pool    *x509.CertPool
	issuing *x509.Certificate
}

// bundle is the root set as agents are told.
func (r rootSet) bundle() *api.Bundle {
	b := &api.Bundle{TrustDomain: r.TrustDomain.Name(), Number: r.Number, SignedRootSet: r.signed}
	for _, c := range r.Roots {
		b.X509Authorities = append(b.X509Authorities, c.Raw)
	}
	return b
}

// authorities is asked for the signer's authority: at the start, and then by one
// goroutine and by each `signet check`. What it says is believed if it verifies.
type authorities interface {
	Authority(ctx context.Context) (*api.AuthorityResponse, error)
}

// authority follows the signer's authority.
type authority struct {
	signer  authorities
	changed func()
	now     atomic.Pointer[rootSet]
}

func (a *authority) roots() rootSet { return *a.now.Load() }

// load asks the signer, and takes what it says if it verifies.
func (a *authority) load(ctx context.Context) error {
	resp, err := a.signer.Authority(ctx)
	if err != nil {
		return fmt.Errorf("ask the signer for its authority: %w", err)
	}
	return a.take(resp)
}

// take makes what the signer says the authority, if it verifies.
func (a *authority) take(resp *api.AuthorityResponse) error {
	// No pin at first: the signer is our own child, or the user that may listen at
	// a path. From then on it must be the same authority, also after a restart.
	var pin []byte
	old := a.now.Load()
	if old != nil {
		pin = old.Pin()
	}
	set, err := identity.ParseRootSet(resp.GetSignedRootSet(), pin)
	if err != nil {
		return fmt.Errorf("root set: %w", err)
	}
	td, err := spiffeid.TrustDomainFromString(resp.GetTrustDomain())
	if err != nil || td != set.TrustDomain {
		return fmt.Errorf("the signer's trust domain %q is not the root set's %q", resp.GetTrustDomain(), set.TrustDomain)
	}
	issuing, err := x509.ParseCertificate(resp.GetIssuing())
	if err != nil {
		return fmt.Errorf("issuing certificate: %w", err)
	}
	a.now.Store(&rootSet{RootSet: set, signed: resp.GetSignedRootSet(), pool: set.Pool(), issuing: issuing})
	if old != nil && old.Number != set.Number {
		a.changed()
	}
	return nil
}

// run looks for a new issuing certificate or root set until ctx ends. A signer
// that does not answer now changes nothing: what it said last is still true.
func (a *authority) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			_ = a.load(ctx)
		}
	}
}
