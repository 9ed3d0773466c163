package ca

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/plain"
)

// checked is a request that may be signed, as far as it goes by itself. Only
// check makes one.
type checked struct {
	id        spiffeid.ID
	key       crypto.PublicKey
	spki      [sha256.Size]byte
	lifetime  time.Duration
	profile   string
	requester string
}

// check holds a request to its profile and its key to what may be certified.
func (i *Issuer) check(r Request) (*checked, error) {
	if err := checkID(r.ID, i.authority.td, r.Profile); err != nil {
		return nil, err
	}
	if len(r.Requester) == 0 || len(r.Requester) > maxID || !utf8.ValidString(r.Requester) || strings.ContainsRune(r.Requester, 0) {
		return nil, fmt.Errorf("%w: a requester of 1 to %d bytes of UTF-8 must be named", ErrInvalid, maxID)
	}
	lifetime, err := i.profiles.lifetime(r.Lifetime)
	if err != nil {
		return nil, err
	}
	key, err := parseCSR(r.CSR, i.profiles.AllowRSA)
	if err != nil {
		return nil, err
	}
	spki, err := hashKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	// The reservation asks this again, where no other request can come between;
	// here it saves the work.
	if err := i.log.checkKey(spki[:], r.ID.String()); err != nil {
		return nil, err
	}
	return &checked{
		id: r.ID, key: key, spki: spki, lifetime: lifetime, profile: r.Profile, requester: r.Requester,
	}, nil
}

// checkClock refuses a clock that stands before what is recorded, by more than
// clocks are allowed to differ.
func checkClock(now, newest time.Time) error {
	if now.Before(newest.Add(-backdate)) {
		return fmt.Errorf("%w: it is %s, but the log has a record of %s: set this host's clock, or wait until then (docs/SIGNER.md, \"The clock\")", ErrClock,
			plain.UTC(now), plain.UTC(newest))
	}
	return nil
}
