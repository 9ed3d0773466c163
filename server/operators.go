package server

import (
	"context"
	"errors"
	"fmt"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/proxy"
	"signet.example/server/admin"
	"signet.example/server/awaited"
	"signet.example/server/check"
	"signet.example/server/drafts"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/proxies"
	"signet.example/server/views"
	"signet.example/store"
	"signet.example/xds/effect"
)

// operators is what an operator asks, of this server.
func (s *server) operators() *admin.Server {
	return admin.New(admin.Config{
		TrustDomain: s.td, Clock: s.clock, Log: s.log, Stopping: s.stopping,
		Metrics: admin.Metrics{AuditErrors: s.metrics.auditErrors, Calls: s.metrics.adminCalls},
		Trail:   s.store, Note: s.audit,
		Stored: stored{s}, Past: s.store, Routing: s.views, Proxies: proxies.Proxies{Routing: s.views, Config: s.views.Config, Agents: s.statuses.All}, Fleet: operated{s}, AgentRows: s.store, Certificates: s.issued, Sessions: s.sessions, Policies: s.policies,
		Drafts: drafts.Drafts{TrustDomain: s.td, Sessions: s.sessions},
		Tokens: s.store, Pin: func() []byte { return s.authority.Roots().Set.Pin() },
		Findings: func(ctx context.Context) []*api.Finding { return check.Findings(s.look(ctx)) },
		Warnings: func(before, after admin.Model, named ...kinds.Key) []string {
			return check.Warnings(before, after, check.Hosts{BySelectors: s.roster.BySelectors, ByToken: s.roster.ByToken, Of: s.roster.Get, Found: s.foundElsewhere}, s.endpoints.Snapshot(), named...)
		},
		LogDirs: s.access.LogDirs, CheckGroup: nodes.CheckGroup,
	})
}

// stored is what is stored (admin.Stored).
type stored struct{ s *server }

// Newest implements admin.Stored.
func (w stored) Newest(ctx context.Context) (admin.Model, error) { return w.s.reload(ctx) }

// Begin implements admin.Stored.
func (w stored) Begin(ctx context.Context) (_ admin.Change, end func(), err error) {
	unlock, err := w.s.common.writes.Lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	now, err := w.s.reload(ctx)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return change{w.s, now}, unlock, nil
}

// change is one that is being made (admin.Change). It has the lock.
type change struct {
	s   *server
	now *model.Model
}

// Now implements admin.Change.
func (c change) Now() admin.Model { return c.now }

// With implements admin.Change.
func (c change) With(put []*kinds.Object, remove ...kinds.Key) (admin.Draft, error) {
	next, err := c.now.With(put, remove...)
	if err != nil {
		return nil, err
	}
	return draft{c, next}, nil
}

// draft is a change that is valid as a whole (admin.Draft).
type draft struct {
	of   change
	next *model.Model
}

// Model implements admin.Draft.
func (d draft) Model() admin.Model { return d.next }

// Try implements admin.Draft.
func (d draft) Try(writes []store.Write, refused func(proxy.Ref, error)) (admin.Ready, error) {
	next, err := d.of.now.Written(writes, d.next)
	if err != nil {
		return nil, err
	}
	r := ready{s: d.of.s, writes: writes, now: d.of.now, next: next}
	if refused != nil {
		r.tried = d.of.s.views.Try(viewed{d.of.now}, viewed{next}, refused)
	}
	return r, nil
}

// Effects implements admin.Draft.
func (d draft) Effects(requests bool) ([]effect.Effect, int, error) {
	return d.of.s.views.Effects(viewed{d.of.now}, viewed{d.next}, requests)
}

// ready is a change that was checked against all that is stored (admin.Ready).
type ready struct {
	s      *server
	writes []store.Write
	now    *model.Model     // what it was checked against
	next   *model.Model     // what the store will have when it has taken them
	tried  *views.Candidate // what next serves, nil if it was not translated
}

// Write implements admin.Ready.
func (r ready) Write(ctx context.Context, actor, asked string) (uint64, error) {
	r.s.loading.Lock()
	defer r.s.loading.Unlock()
	// Before any server makes views of it. If it is not stored after all, whoever was awaited no more is called by mTLS alone.
	r.s.common.awaited.Update(func(was *awaited.Nodes) *awaited.Nodes {
		return awaited.After(was, viewed{r.next}.Rebound(viewed{r.now}), viewed{r.now}, viewed{r.next})
	})
	revision, err := r.s.store.Apply(ctx, actor, asked, r.next.Revision()-1, r.writes)
	if errors.Is(err, store.ErrConflict) { // by another server, which the lock did not keep out
		return 0, fault.New(fault.Unavailable, "%v; nothing was changed: apply again", err)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: write to the store: %w", fault.Unavailable, err)
	}
	if len(r.writes) >= manyWrites {
		r.s.large.Wake()
	}
	if revision == r.next.Revision() { // nothing came between, so there is nothing to read
		r.s.install(ctx, r.next)
		r.s.views.Rebuild(ctx, r.tried)
		return revision, nil
	}
	if _, err := r.s.catchUp(ctx); err != nil { // it is stored: watch tries again
		return revision, fmt.Errorf("stored as revision %d, not yet served: %w", revision, err)
	}
	return revision, nil
}

// operated is who there is (admin.Fleet).
type operated struct{ s *server }

// All implements admin.Fleet.
func (f operated) All() []fleet.Status { return f.s.statuses.All() }

// Get implements admin.Fleet.
func (f operated) Get(id string) (fleet.Status, bool) {
	a, ok := f.s.roster.Get(id)
	if !ok {
		return fleet.Status{}, false
	}
	return f.s.statuses.Of(a), true
}

// Follow implements admin.Fleet.
func (f operated) Follow(ctx context.Context) error {
	if err := f.s.reloadRoster(ctx); err != nil {
		return err
	}
	f.s.access.Review()
	return nil
}

// Forget implements admin.Fleet.
func (f operated) Forget(id string) {
	f.s.sessions.Drop(id)
}
