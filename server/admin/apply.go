package admin

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/server/fault"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/store"
)

// Apply writes all documents or none. Every mistake of every file is in the error.
func (s *Server) Apply(ctx context.Context, req *api.ApplyRequest) (*api.ApplyResponse, error) {
	if req.GetEffect() && !req.GetDryRun() {
		return nil, fault.New(fault.Invalid, "the effect of a change is told in a dry run")
	}
	resp, draft, applied, err := s.apply(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.GetEffect() || req.GetConcerned() { // after the lock, as below
		if resp.Effect, err = s.effect(draft, req.GetEffect()); err != nil {
			return nil, err
		}
	}
	if req.GetConcerned() {
		now, err := s.cfg.Stored.Newest(ctx)
		if err != nil {
			return nil, fmt.Errorf("whom it concerns cannot be told: %w", err)
		}
		s.standing(resp.GetEffect(), now, resp.GetChanges())
		if err := s.undecided(ctx, resp.GetEffect(), now, resp.GetChanges()); err != nil {
			return nil, fmt.Errorf("whom it concerns cannot be told: %w", err)
		}
	}
	own := len(resp.GetWarnings()) - int(resp.GetExportedWarnings())
	resp.Warnings = slices.Insert(resp.GetWarnings(), own, issuers.Warnings(ctx, applied)...) // after the lock: others need not wait for it
	return resp, nil
}

// effect is what a change does, or, of one that is made, whose proxies it concerns.
func (s *Server) effect(d Draft, requests bool) (*api.Effect, error) {
	all, leftOut, err := d.Effects(requests)
	switch {
	case err != nil && requests:
		return nil, fault.New(fault.Invalid, "what it does to requests cannot be foretold: %v", err)
	case err != nil: // it is stored
		return nil, fmt.Errorf("whom it concerns cannot be told: %w", err)
	}
	return s.cfg.Proxies.Effect(all, leftOut)
}

// apply is Apply, and returns what was made of the change, and the issuers that are new or changed.
func (s *Server) apply(ctx context.Context, req *api.ApplyRequest) (*api.ApplyResponse, Draft, []jwt.Issuer, error) {
	in := &intake{cfg: &s.cfg, skipForeign: req.GetSkipForeign()}
	if err := s.understand(ctx, in, req.GetSources()); err != nil {
		return nil, nil, nil, err
	}
	actor, change, end, err := s.begin(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	defer end()
	now := change.Now()
	owner, err := ownership(req)
	if err != nil {
		return nil, nil, nil, err
	}
	gone, err := in.pruned(now, owner)
	if err != nil {
		return nil, nil, nil, err
	}
	in.owned(now, owner)
	in.emptied()
	draft, err := in.join(change, gone...)
	if err != nil {
		return nil, nil, nil, fault.New(fault.Invalid, "%s", err.Error())
	}
	for _, o := range gone {
		if err := s.leftBy(o); err != nil {
			return nil, nil, nil, err
		}
	}
	changes, writes := changesOf(now, in.objects, owner.of)
	if owner.name == "" {
		in.warnings = append(in.warnings, ofOwners(changes)...)
	}
	deleted, deletes := deletionsOf(gone)
	changes, writes = append(changes, deleted...), append(writes, deletes...)
	ready, err := in.try(draft, writes)
	if err != nil {
		return nil, nil, nil, err
	}
	keys := make([]kinds.Key, 0, len(in.objects))
	for _, o := range in.objects {
		keys = append(keys, o.Key())
	}
	next := draft.Model()
	resp := &api.ApplyResponse{
		Changes: changes, Revision: now.Revision(), SkippedForeign: in.foreign,
		Warnings:         slices.Concat(in.warnings, s.cfg.Warnings(now, next, keys...), in.exported),
		ExportedWarnings: int32(len(in.exported)), //nolint:gosec // bounded by what a manifest may have
	}
	var applied []jwt.Issuer
	for _, w := range writes {
		if w.Delete {
			continue
		}
		if is, ok := next.Objects().Get(kinds.Key{Kind: w.Kind, Mesh: w.Mesh, Name: w.Name}).Value.(jwt.Issuer); ok {
			applied = append(applied, is)
		}
	}
	switch {
	case req.GetDryRun():
		return resp, draft, applied, nil
	case len(writes) == 0:
		return resp, draft, nil, s.intent(ctx, "Apply", req)
	}
	resp.Revision, err = ready.Write(ctx, actor, describe(req))
	return resp, draft, applied, err
}

// changesOf compares with what is stored, by canonical manifest and owner.
func changesOf(now Model, objects []*kinds.Object, ownerOf func(k kinds.Key, stored *kinds.Object) string) ([]*api.Change, []store.Write) {
	var changes []*api.Change
	var writes []store.Write
	for _, o := range objects {
		after, k := o.Encode(), o.Key()
		old := now.Objects().Get(k)
		c := &api.Change{Action: api.Change_CREATED.Enum(), Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, After: string(after), Owner: ownerOf(k, old)}
		if old != nil {
			before := old.Encode()
			c.Action, c.Before, c.OwnerBefore = api.Change_CONFIGURED.Enum(), string(before), old.Owner
			if bytes.Equal(before, after) && c.GetOwner() == old.Owner {
				c.Action = api.Change_UNCHANGED.Enum()
			}
		}
		changes = append(changes, c)
		if c.GetAction() != api.Change_UNCHANGED {
			writes = append(writes, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Manifest: after, Owner: c.GetOwner()}})
		}
	}
	return changes, writes
}
