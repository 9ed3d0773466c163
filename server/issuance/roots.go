package issuance

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/identity"
)

// authorityEvery is how often the signer is asked for a new issuing certificate.
const authorityEvery = 30 * time.Second

// Roots is what the signer says of its authority, verified. Immutable.
type Roots struct {
	Set     identity.RootSet
	Signed  []byte // the set as a document
	Pool    *x509.CertPool
	Issuing *x509.Certificate
}

// Bundle is the root set as agents are told.
func (r Roots) Bundle() *api.Bundle {
	b := &api.Bundle{TrustDomain: r.Set.TrustDomain.Name(), Number: r.Set.Number, SignedRootSet: r.Signed}
	for _, c := range r.Set.Roots {
		b.X509Authorities = append(b.X509Authorities, c.Raw)
	}
	return b
}

// FirstEnd is when the first of the roots ends.
func (r Roots) FirstEnd() time.Time {
	var end time.Time
	for _, c := range r.Set.Roots {
		if end.IsZero() || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// ReadRoots verifies what a signer says of its authority. With a pin it must be that
// authority; without one it is whoever the caller reached.
func ReadRoots(resp *api.AuthorityResponse, pin []byte) (Roots, error) {
	set, err := identity.ParseRootSet(resp.GetSignedRootSet(), pin)
	if err != nil {
		return Roots{}, fmt.Errorf("root set: %w", err)
	}
	td, err := spiffeid.TrustDomainFromString(resp.GetTrustDomain())
	if err != nil || td != set.TrustDomain {
		return Roots{}, fmt.Errorf("the signer's trust domain %q is not the root set's %q", resp.GetTrustDomain(), set.TrustDomain)
	}
	issuing, err := x509.ParseCertificate(resp.GetIssuing())
	if err != nil {
		return Roots{}, fmt.Errorf("issuing certificate: %w", err)
	}
	// Whether it has ended is not asked: that is what `signet check` says of it.
	if !slices.ContainsFunc(set.Roots, func(root *x509.Certificate) bool {
		return issuing.Equal(root) || issuing.CheckSignatureFrom(root) == nil
	}) {
		return Roots{}, errors.New("the issuing certificate is of none of the roots")
	}
	return Roots{Set: set, Signed: resp.GetSignedRootSet(), Pool: set.Pool(), Issuing: issuing}, nil
}

// Authorities is asked for the signer's authority: at the start, and then by one
// goroutine and by each `signet check`. What it says is believed if it verifies.
type Authorities interface {
	Authority(ctx context.Context) (*api.AuthorityResponse, error)
}

// Authority follows the signer's authority.
type Authority struct {
	signer  Authorities
	changed func()
	log     *slog.Logger

	taking sync.Mutex // held while an answer is compared with what is known, and takes its place
	now    atomic.Pointer[Roots]
}

// NewAuthority has no roots until Load has returned nil. changed is called when the
// roots are others than before, and must not wait.
func NewAuthority(signer Authorities, changed func(), log *slog.Logger) *Authority {
	return &Authority{signer: signer, changed: changed, log: log}
}

// Roots is what verified last.
func (a *Authority) Roots() Roots { return *a.now.Load() }

// ErrAuthority is wrapped where a signer answers with an authority that is not taken.
var ErrAuthority = errors.New("the signer's authority is refused")

// Load asks the signer, and takes what it says if it verifies and is not older than what
// is known: no agent would take that.
func (a *Authority) Load(ctx context.Context) error {
	resp, err := a.signer.Authority(ctx)
	if err != nil {
		return fmt.Errorf("ask the signer for its authority: %w", err)
	}
	a.taking.Lock()
	defer a.taking.Unlock()
	// No pin at first: the signer is our own child, or the user that may listen at
	// a path. From then on it must be the same authority, also after a restart.
	var pin []byte
	old := a.now.Load()
	if old != nil {
		pin = old.Set.Pin()
	}
	next, err := ReadRoots(resp, pin)
	if err == nil && old != nil && next.Set.Number < old.Set.Number {
		err = fmt.Errorf("its root set has number %d, and %d is known here: put the signer's newest files back", next.Set.Number, old.Set.Number)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAuthority, err)
	}
	a.now.Store(&next)
	if old != nil && old.Set.Number != next.Set.Number {
		a.changed()
	}
	return nil
}

// Run looks for a new issuing certificate or root set until ctx ends. A signer
// that does not answer now changes nothing: what it said last is still true. One whose
// answer is refused has a line in the log, and another one when it is taken again.
func (a *Authority) Run(ctx context.Context) error {
	tick := time.NewTicker(authorityEvery)
	defer tick.Stop()
	refused := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			switch err := a.Load(ctx); {
			case errors.Is(err, ErrAuthority) && !refused:
				refused = true
				a.log.ErrorContext(ctx, "authority refused", slog.Any("err", err))
			case err == nil && refused:
				refused = false
				a.log.InfoContext(ctx, "authority taken again")
			}
		}
	}
}
