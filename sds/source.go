package sds

import (
	"context"
	"crypto"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

var (
	// ErrNoIdentity is returned by a Source when the caller is entitled to
	// nothing. It also ends a stream whose last identity was taken away.
	ErrNoIdentity = errors.New("no identity is registered for this process")
	// ErrUnavailable is returned by a Source that cannot tell yet, or cannot
	// get what the caller is entitled to. The caller should come again.
	ErrUnavailable = errors.New("not available yet")
)

// Source reports what a caller may have, for as long as it asks.
//
// Watch calls send at once with what there is, and again whenever that
// changes, until ctx ends, send fails, or it has to end with an error of its
// own: ErrNoIdentity, ErrUnavailable, or whatever selectors returned.
// Before each send it calls selectors afresh: a process may have become another
// one since the last answer. send refuses an Update without it.
// Watch is called from many goroutines, once for each stream.
type Source interface {
	Watch(ctx context.Context, selectors func(context.Context) (identity.Selectors, error), send func(Update) error) error
}

// Update is all that a caller may have at one moment. What is absent from it
// and was in the one before is taken away (SPIFFE Workload API 4.4).
type Update struct {
	// SVIDs, the caller's default first.
	SVIDs []SVID
	// Bundles by the trust domain's SPIFFE ID ("spiffe://td"): authorities in DER.
	Bundles map[string][][]byte
}

// SVID is one X.509-SVID with its key.
type SVID struct {
	ID spiffeid.ID
	// Chain is DER, leaf first.
	Chain [][]byte
	Key   crypto.PrivateKey
	// Hint tells the workload what the SVID is meant for; may be empty.
	Hint string
}
