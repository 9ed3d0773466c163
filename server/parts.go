package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/server/access"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/policies"
	"signet.example/server/views"
	"signet.example/store"
)

// server joins the parts. load makes each of them before what uses it, and sets all
// their fields but access.verified, which is the listener's: serve sets that before it
// starts a goroutine. Only current, ready and stopping change later.
//
// Locks are taken in this order, left before right:
//
//	writes → loading → Views.mu → registry.mu, issuers.mu, Roster.mu
//	         loading → roster.following → the store, roster.mu
//	         loading → the store
//	         loading → access.mu → roster.mu          (before Views.mu, not under it)
//	writes → policies.mu
//	policies.reading → policies.mu → the store
//	Witness.writing → Witness.mu → the store         (only what an operator accepts is written under mu)
//	Session.taking, Sessions.mu → registry.mu → Roster.mu; Endpoints.mu
//
// "The store" is a write, which waits for the one before and for the disk. Every lock
// that is not named here, of a part or of another folder (ads has some in each view), is
// held for a look or a change in memory, and none is taken under it. What is behind an
// atomic pointer (model, policy state, root set) is read under any.
type server struct {
	cfg   Config
	dir   dataDir
	td    spiffeid.TrustDomain
	log   *slog.Logger
	clock func() time.Time

	store     *store.Store
	signer    *issuance.Witness
	signing   *issuance.Queue
	authority *issuance.Authority
	own       *issuance.Own
	roster    *fleet.Roster
	sessions  *fleet.Sessions
	instances *fleet.Instances
	statuses  fleet.Statuses
	registry  *fleet.File // what endpoints are over: this server has it alone
	endpoints *fleet.Endpoints
	policies  *policies.Revisions
	issuers   *issuers.Keys
	views     *views.Views
	access    *access.Access
	issued    *issuance.Log
	metrics   *metrics
	refusals  *access.Refusals
	started   time.Time

	readMemory uint64 // of a process that reads policies

	writes   writeLock             // of an admin write, from its check against all that is stored to its end
	loading  sync.Mutex            // from a write to the store, or a look at it, until current is replaced
	current  atomic.Pointer[model] // replaced by the holder of loading alone
	ready    atomic.Bool
	stopping chan struct{} // closed when the server begins to stop
}

// writeLock serialises admin writes: each is checked against all that is stored,
// so nothing may be stored between the check and the write.
type writeLock chan struct{}

func (l writeLock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l writeLock) unlock() { <-l }
