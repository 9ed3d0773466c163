package store

import (
	"errors"
	"time"
)

// ErrNotFound is returned when what was named is not there.
var ErrNotFound = errors.New("not found")

// ErrToken is returned for a join token that is unknown, expired or used; the
// three are not told apart to the caller.
var ErrToken = errors.New("join token is unknown, expired or already used")

// ErrConflict is returned when a write contradicts what is stored, for example
// a host key that belongs to another agent, or objects that changed since it was checked.
var ErrConflict = errors.New("conflict")

// Object is one stored configuration object; Manifest is opaque here.
type Object struct {
	Kind, Mesh, Name string
	Manifest         []byte
	Owner            string // whose it is, "" for nobody's
	// Revision that it has, and the one in which it was first there.
	Revision, Created uint64
}

// Write puts an object, or deletes it. Revision and Created are ignored.
type Write struct {
	Object
	Delete bool
}

// The kinds of change that Apply does not write.
const (
	// KindAgent: an agent was deleted; Name is its id.
	KindAgent = "signet:agent"
	// KindBan: an agent was banned; Name is its id.
	KindBan = "signet:ban"
	// KindPolicyRevision: a policy revision was stored; Name is its id.
	KindPolicyRevision = "signet:policy-revision"
)

// Change is one row of the outbox, in the order of its revision.
type Change struct {
	Revision         uint64
	Kind, Mesh, Name string
	Manifest         []byte
	Owner            string
	Deleted          bool
	At               time.Time
}

// Agent is one joined node agent. HostKey is the SHA-256 of its host key's SPKI.
type Agent struct {
	ID string
	// Group that its evidence named; empty where that is decided by Selectors.
	Group, Hostname string
	HostKey         []byte
	Joined          time.Time
	Address         string // from which it joined; empty where that was not written down
	Banned          bool
	BanReason       string // the operator's, may be empty
	// Method by which its host was attested, and what that showed of it.
	Method    string
	Selectors []string
	// Evidence is what the host is known by when it joins again by the same method;
	// nil for evidence that is good once.
	Evidence []byte
}

// PolicyRow is one compiled and tested policy revision; Body is opaque here.
type PolicyRow struct {
	ID, Source, Commit string
	Body               []byte
	At                 time.Time
}

// AuditRow is one line of the audit trail.
type AuditRow struct {
	Sequence              uint64
	At                    time.Time
	Actor, Action, Detail string
}

// LogMark is a position of the issuance log: a record and, by its hash, all before.
type LogMark struct {
	Sequence uint64
	Hash     []byte
}
