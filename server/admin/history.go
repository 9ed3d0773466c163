package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/kinds"
	"signet.example/store"
)

const (
	fewRevisions  = 20
	mostRevisions = 10_000
)

// History is who changed which objects, and when; of one revision also what they were.
func (s *Server) History(ctx context.Context, req *api.HistoryRequest) (*api.HistoryResponse, error) {
	of := store.Key{Mesh: req.GetMesh(), Name: req.GetName()}
	if req.GetKind() != "" {
		var err error
		if of.Kind, err = kindOf(req.GetKind()); err != nil {
			return nil, err
		}
	}
	n := int(req.GetLimit())
	switch {
	case n < 0 || n > mostRevisions:
		return nil, fault.New(fault.Invalid, "the limit %d is not within 1 to %d", n, mostRevisions)
	case n == 0:
		n = fewRevisions
	}
	past, since, err := s.cfg.Past.History(ctx, of, req.GetRevision(), n)
	if err != nil {
		return nil, err
	}
	resp := &api.HistoryResponse{Since: since}
	for _, p := range past {
		c := p.Change
		last := len(resp.GetRevisions()) - 1
		if last < 0 || resp.GetRevisions()[last].GetRevision() != c.Revision {
			resp.Revisions = append(resp.Revisions, &api.Revision{Revision: c.Revision, At: timestamppb.New(c.At), Actor: plain.Text(p.Actor)})
			last++
		}
		action := api.Change_CONFIGURED
		switch {
		case c.Deleted:
			action = api.Change_DELETED
		case p.New:
			action = api.Change_CREATED
		}
		r := resp.GetRevisions()[last]
		change := &api.Change{Action: action.Enum(), Kind: c.Kind, Mesh: c.Mesh, Name: c.Name, Owner: c.Owner}
		if req.GetRevision() != 0 {
			change.Before, change.After, change.OwnerBefore = string(p.Before), string(c.Manifest), p.OwnerBefore
		}
		r.Changes = append(r.Changes, change)
	}
	switch {
	case len(past) > 0:
	case req.GetRevision() != 0 && req.GetRevision() >= since:
		return nil, fault.New(fault.NotFound, "no revision %d has changed such resources: `signet history` has those that did", req.GetRevision())
	case req.GetRevision() != 0:
		return nil, fault.New(fault.NotFound, "what revision %d changed is not known any more: what is known begins with revision %d (retention.changes of the server's configuration is how long)", req.GetRevision(), since)
	case of != (store.Key{}):
		return nil, fault.New(fault.NotFound, "nothing is known of the past of %s: what is known begins with revision %d", meant(of), since)
	}
	return resp, nil
}

// meant is what a key stands for.
func meant(k store.Key) string {
	text := "objects"
	if k.Kind != "" {
		text = k.Kind
	}
	if k.Name != "" {
		text += fmt.Sprintf(" %q", plain.Text(k.Name))
	}
	if k.Mesh != "" {
		text += fmt.Sprintf(" of mesh %q", plain.Text(k.Mesh))
	}
	return text
}

// Rollback makes the objects what they were in a revision. What that gives is checked as an
// apply is: what would be refused today is refused.
func (s *Server) Rollback(ctx context.Context, req *api.RollbackRequest) (*api.ApplyResponse, error) {
	resp, draft, err := s.rollback(ctx, req)
	if err != nil || !req.GetConcerned() {
		return resp, err
	}
	resp.Effect, err = s.effect(draft, false) // after the lock
	return resp, err
}

// rollback is Rollback, and returns what was made of the change.
func (s *Server) rollback(ctx context.Context, req *api.RollbackRequest) (*api.ApplyResponse, Draft, error) {
	actor, change, end, err := s.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	now := change.Now()
	back, err := s.cfg.Past.Back(ctx, req.GetRevision())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil, fault.New(fault.NotFound, "there is no revision %d: the last one is %d", req.GetRevision(), now.Revision())
	case errors.Is(err, store.ErrForgotten):
		return nil, nil, fault.New(fault.Invalid, "what there was in revision %d is not known any more; `signet history` has the revisions that are (retention.changes of the server's configuration is how long)", req.GetRevision())
	case err != nil:
		return nil, nil, err
	}
	in := &intake{cfg: &s.cfg}
	owners := map[kinds.Key]string{}
	var gone []*kinds.Object
	for _, w := range back {
		k := kinds.Key{Kind: w.Kind, Mesh: w.Mesh, Name: w.Name}
		switch old := now.Objects().Get(k); {
		case !w.Delete:
			owners[k] = w.Owner
			if err := in.readStored(ctx, k, &api.Source{File: fmt.Sprintf("%s of revision %d", k, w.Revision), Content: w.Manifest}); err != nil {
				return nil, nil, err
			}
		case old != nil:
			gone = append(gone, old)
		}
	}
	draft, err := in.join(change, gone...)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "%s", err.Error())
	}
	for _, o := range gone {
		if err := s.leftBy(o); err != nil {
			return nil, nil, err
		}
	}
	changes, writes := changesOf(now, in.objects, func(k kinds.Key, _ *kinds.Object) string { return owners[k] })
	changes = slices.DeleteFunc(changes, func(c *api.Change) bool { return c.GetAction() == api.Change_UNCHANGED }) // they were changed, and back
	deleted, deletes := deletionsOf(gone)
	changes, writes = append(changes, deleted...), append(writes, deletes...)
	ready, err := in.try(draft, writes)
	if err != nil {
		return nil, nil, err
	}
	undone, err := s.undone(ctx, req.GetRevision(), changes)
	if err != nil {
		return nil, nil, err
	}
	resp := &api.ApplyResponse{Changes: changes, Revision: now.Revision(), Warnings: slices.Concat(undone, in.warnings, ofOwners(changes), s.cfg.Warnings(now, draft.Model()))}
	if req.GetDryRun() || len(writes) == 0 {
		return resp, draft, nil
	}
	resp.Revision, err = ready.Write(ctx, actor, fmt.Sprintf("Rollback to revision %d", req.GetRevision()))
	return resp, draft, err
}

// undone returns which revisions after one a change undoes, and whose they are, the newest first. Who
// takes back the last revision needs no word of it.
func (s *Server) undone(ctx context.Context, after uint64, changes []*api.Change) ([]string, error) {
	past, _, err := s.cfg.Past.History(ctx, store.Key{}, 0, fewRevisions+1)
	if err != nil {
		return nil, err
	}
	changed := map[kinds.Key]bool{}
	for _, c := range changes {
		changed[kinds.Key{Kind: c.GetKind(), Mesh: c.GetMesh(), Name: c.GetName()}] = true
	}
	var of []store.Past // the first of each revision
	named := map[uint64][]string{}
	for _, p := range past {
		k, at := kinds.Key{Kind: p.Change.Kind, Mesh: p.Change.Mesh, Name: p.Change.Name}, p.Change.Revision
		if at <= after || !changed[k] {
			continue
		}
		if named[at] == nil {
			of = append(of, p)
		}
		named[at] = append(named[at], k.String())
	}
	if len(of) < 2 {
		return nil, nil
	}
	var out []string
	for i, p := range of {
		if i == fewRevisions {
			return append(out, fmt.Sprintf("and others after revision %d: `signet history` has them", after)), nil
		}
		who := cmp.Or(plain.Text(p.Actor), "somebody")
		out = append(out, fmt.Sprintf("undoes revision %d, by %s at %s: %s", p.Change.Revision, who, p.Change.At.UTC().Format(time.RFC3339), fewOf(named[p.Change.Revision])))
	}
	return out, nil
}
