package ca

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// errKeyReuse is why a reservation is refused for its key.
var errKeyReuse = fmt.Errorf("the public key already belongs to another identity: %w", ErrInvalid)

// keyPrefix is the first half of a key's SHA-256. Finding another key with the
// same one takes 2^64 work, and what it buys is a refusal.
type keyPrefix [16]byte

// ledger is what the records so far add up to, rebuilt from the file at open:
// which reservations are open, which key belongs to whom, which keys are
// authorities', and how late it has become. It is the log's only judge of
// whether a record may follow.
//
// Owned by whoever holds the Log's mutex; changed only by the writer.
type ledger struct {
	sequence    uint64
	newest      time.Time
	open        map[string]Record // by serial
	keys        map[keyPrefix]uint32
	ids         []string // what keys point into
	idOf        map[string]uint32
	authorities map[keyPrefix][]byte // key -> SHA-256 of the certificate used last
}

func newLedger() *ledger {
	return &ledger{
		open:        map[string]Record{},
		keys:        map[keyPrefix]uint32{},
		idOf:        map[string]uint32{},
		authorities: map[keyPrefix][]byte{},
	}
}

// check reports whether r may be the next record.
func (g *ledger) check(r Record) error {
	switch r.Kind {
	case KindReserved:
		if r.Serial == "" || r.ID == "" {
			return errors.New("a reservation needs a serial and a SPIFFE ID")
		}
		if _, ok := g.open[r.Serial]; ok {
			return fmt.Errorf("serial %s is already reserved", r.Serial)
		}
		return g.checkKey(r.SPKI, r.ID)
	case KindIssued, KindAbandoned:
		o, ok := g.open[r.Serial]
		if !ok {
			return fmt.Errorf("serial %s is not reserved", r.Serial)
		}
		if o.ID != r.ID || !bytes.Equal(o.SPKI, r.SPKI) {
			return fmt.Errorf("serial %s is reserved for another identity or key", r.Serial)
		}
		return nil
	case KindAuthority:
		if len(r.SPKI) != sha256.Size || len(r.Certificate) != sha256.Size {
			return errors.New("an authority needs the hashes of its key and certificate")
		}
		return nil
	}
	return fmt.Errorf("kind %q is not known", r.Kind)
}

// checkKey holds a key to one SPIFFE ID, and to not being an authority's.
func (g *ledger) checkKey(spki []byte, id string) error {
	k, err := prefixOf(spki)
	if err != nil {
		return err
	}
	if _, ok := g.authorities[k]; ok {
		return fmt.Errorf("the public key is a signing authority's: %w", ErrInvalid)
	}
	if at, ok := g.keys[k]; ok && g.ids[at] != id {
		return errKeyReuse
	}
	return nil
}

// apply takes over a checked record and returns how to take it back.
func (g *ledger) apply(r Record) (undo func()) {
	sequence, newest := g.sequence, g.newest
	g.sequence = r.Sequence
	if r.Time.After(g.newest) {
		g.newest = r.Time
	}
	more := g.applyKind(r)
	return func() {
		more()
		g.sequence, g.newest = sequence, newest
	}
}

func (g *ledger) applyKind(r Record) (undo func()) {
	k, _ := prefixOf(r.SPKI) // check has seen it
	switch r.Kind {
	case KindReserved:
		_, known := g.keys[k]
		g.open[r.Serial] = r
		g.keys[k] = g.intern(r.ID)
		return func() {
			delete(g.open, r.Serial)
			if !known {
				delete(g.keys, k)
			}
		}
	case KindAuthority:
		before, known := g.authorities[k]
		g.authorities[k] = r.Certificate
		return func() {
			if g.authorities[k] = before; !known {
				delete(g.authorities, k)
			}
		}
	default:
		o := g.open[r.Serial]
		delete(g.open, r.Serial)
		return func() { g.open[r.Serial] = o }
	}
}

// intern keeps one copy of each SPIFFE ID: an identity has a new key at every
// rotation, and the index holds them all.
func (g *ledger) intern(id string) uint32 {
	at, ok := g.idOf[id]
	if !ok {
		at = uint32(len(g.ids)) //nolint:gosec // 2^32 identities do not fit in memory
		g.ids = append(g.ids, id)
		g.idOf[id] = at
	}
	return at
}

func prefixOf(spki []byte) (k keyPrefix, err error) {
	if len(spki) != sha256.Size {
		return k, fmt.Errorf("hash of a public key of %d bytes: want %d", len(spki), sha256.Size)
	}
	copy(k[:], spki)
	return k, nil
}
