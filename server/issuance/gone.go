package issuance

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/store"
)

// PositionOf is a mark as the signer is told it: nil where nothing was seen yet.
func PositionOf(m store.LogMark) *api.LogPosition {
	if m.Sequence == 0 {
		return nil
	}
	return &api.LogPosition{Sequence: m.Sequence, Hash: m.Hash}
}

func markOf(p *api.LogPosition) store.LogMark {
	return store.LogMark{Sequence: p.GetSequence(), Hash: p.GetHash()}
}

// RecordsGone is why nothing is issued: the signer's log ends at head, and seen is
// not in it.
type RecordsGone struct{ head, seen store.LogMark }

// newRecordsGone is of a log that ends at head and has not what was seen.
func newRecordsGone(seen store.LogMark, head *api.LogPosition) *RecordsGone {
	return &RecordsGone{seen: seen, head: markOf(head)}
}

// Code names exactly this refusal, so that who accepts one accepts no other.
func (g *RecordsGone) Code() string {
	sum := sha256.Sum256(append(append([]byte{}, g.head.Hash...), g.seen.Hash...))
	return fmt.Sprintf("%d-%d-%x", g.head.Sequence, g.seen.Sequence, sum[:4])
}

// Error implements error.
func (g *RecordsGone) Error() string {
	cause := fmt.Sprintf("it ends at record %d, and this server has seen record %d", g.head.Sequence, g.seen.Sequence)
	if g.head.Sequence >= g.seen.Sequence {
		cause = fmt.Sprintf("its record %d is another than the one that this server has seen", g.seen.Sequence)
	}
	return "nothing is issued: records are missing from the signer's issuance log: " + cause
}

// Unwrap has agents try again later.
func (g *RecordsGone) Unwrap() error { return fault.Unavailable }

// Fix is what the operator does about it.
func (g *RecordsGone) Fix() string {
	return `put the whole log back; if the signer was restored from a backup and the rest is lost, restart the server once with --accept-log ` +
		g.Code() + ` (docs/SIGNER.md, "Records that are gone")`
}

// Judge is nil where the operator accepts, by its code, that a log that ends at head lacks
// what was seen, and else has what to do about it.
func Judge(seen store.LogMark, head *api.LogPosition, accept string) error {
	gone := newRecordsGone(seen, head)
	if accept == gone.Code() {
		return nil
	}
	return StartFix(gone)
}

// StartFix adds to the error of a start what is to be done about it.
func StartFix(err error) error {
	if gone, ok := errors.AsType[*RecordsGone](err); ok {
		return fmt.Errorf("%w; %s", err, gone.Fix())
	}
	return err
}
