package server

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/watched"
	"signet.example/server/access"
	"signet.example/server/awaited"
	"signet.example/server/cloudmap"
	"signet.example/server/departures"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/model"
	"signet.example/server/policies"
	"signet.example/server/roster"
	"signet.example/server/views"
	"signet.example/store"
)

// server joins the parts. load makes each of them before what uses it, and sets all
// their fields but access.Connections, which are the listener's: serve sets them before it
// starts a goroutine. Only current, ready and stopping change later.
//
// Locks are taken in this order, left before right:
//
//	common.writes → loading → Views.mu → common.fleet, common.keys, Roster.mu
//	         loading → Roster.following → the store, Roster.mu
//	         loading → the store
//	         loading → Access.mu → Roster.mu          (before Views.mu, not under it)
//	common.writes → policies.mu
//	policies.reading → common.activating → policies.mu; the store
//	Witness.writing → Witness.mu → the store         (only what an operator accepts is written under mu)
//	a stream's taking → common.fleet → Roster.mu
//	Arrivals.mu → common.awaited, common.fleet       (one after the other)
//
// "The store" is a write, which waits for the one before and for the disk. Every lock
// that is not named here, of a part or of another folder (ads has some in each view), is
// held for a look or a change in memory, and none is taken under it. What is behind an
// atomic pointer (model, root set) is read under any, and so is what is shared.
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
	roster    *roster.Roster
	sessions  *fleet.Sessions
	instances *fleet.Instances
	departing *departures.Departures
	statuses  fleet.Statuses
	endpoints *fleet.Endpoints
	arrivals  awaited.Arrivals[*fleet.Registered] // ends the wait for virtual nodes
	policies  *policies.Revisions
	issuers   *issuers.Keys
	found     *cloudmap.Services // nil where Cloud Map is not asked
	views     *views.Views
	access    *access.Access
	issued    *issuance.Log
	metrics   *metrics
	refusals  *access.Refusals
	started   time.Time

	readMemory uint64 // of a process that reads policies

	common   common
	loading  sync.Mutex                  // from a write to the store, or a look at it, until current is replaced
	current  atomic.Pointer[model.Model] // replaced by the holder of loading alone
	large    watched.Signal              // a change of many objects was stored
	ready    atomic.Bool
	stopping chan struct{} // closed when the server begins to stop
}
