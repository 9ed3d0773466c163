package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"signet.example/api"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/kinds"
)

// Delete removes one object, or those of manifests, unless something still refers to them.
func (s *Server) Delete(ctx context.Context, req *api.DeleteRequest) (*api.ApplyResponse, error) {
	if isAgentKind(req.GetKind()) {
		resp, err := s.deleteAgent(ctx, req)
		if err == nil && req.GetConcerned() { // it is gone, and nobody is sent to its proxies
			resp.Effect = &api.Effect{}
		}
		return resp, err
	}
	resp, rest, err := s.delete(ctx, req)
	if err != nil || !req.GetConcerned() {
		return resp, err
	}
	resp.Effect, err = s.effect(rest, false) // after the lock
	return resp, err
}

// delete is Delete of objects, and returns what was made of the change.
func (s *Server) delete(ctx context.Context, req *api.DeleteRequest) (*api.ApplyResponse, Draft, error) {
	in := &intake{cfg: &s.cfg, skipForeign: true, names: true}
	if err := s.understand(ctx, in, req.GetSources()); err != nil {
		return nil, nil, err
	}
	actor, change, end, err := s.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	m := change.Now()
	resp := &api.ApplyResponse{Revision: m.Revision()}
	var objects []*kinds.Object
	if len(req.GetSources()) > 0 {
		objects, err = in.named(m, resp)
	} else {
		var o *kinds.Object
		o, err = findObject(m, req)
		objects = []*kinds.Object{o}
	}
	if err != nil {
		return nil, nil, err
	}
	rest, err := s.without(change, objects)
	if err != nil {
		return nil, nil, err
	}
	changes, writes := deletionsOf(objects)
	resp.Changes = changes
	resp.Warnings = slices.Concat(resp.GetWarnings(), ofOwners(changes), s.cfg.Warnings(m, rest.Model()))
	if req.GetDryRun() {
		return resp, rest, nil
	}
	ready, err := rest.Try(writes, nil)
	if err != nil {
		return nil, nil, err
	}
	resp.Revision, err = ready.Write(ctx, actor, describe(req))
	return resp, rest, err
}

// named are the stored objects that manifests are of, whatever else those say. What is not
// stored is in the warnings of the answer.
func (in *intake) named(m Model, resp *api.ApplyResponse) ([]*kinds.Object, error) {
	if len(in.errs) == 0 {
		if err := kinds.AssignMeshes(in.objects, kinds.Meshes(m.Graph(), m.Objects())...); err != nil {
			in.bad(err)
		}
	}
	if len(in.errs) > 0 {
		return nil, fault.New(fault.Invalid, "%s", inOrder(in.errs).Error())
	}
	resp.SkippedForeign = in.foreign
	var objects []*kinds.Object
	given := map[kinds.Key]bool{}
	for _, o := range in.objects {
		k := o.Key()
		if given[k] {
			continue
		}
		given[k] = true
		stored := m.Objects().Get(k)
		switch {
		case stored == nil:
			resp.Warnings = append(resp.Warnings, o.Doc.FieldError("metadata.name", k.String()+" is not stored").Error())
		case o.Resource != nil && !o.Resource.SameObject(stored.Resource):
			return nil, fault.New(fault.Invalid, "%s", o.Doc.FieldError("metadata.name", fmt.Sprintf("%s has the App Mesh name of %s, which is stored and another object", o.Resource, stored.Resource)).Error())
		default:
			objects = append(objects, stored)
		}
	}
	if len(objects) == 0 {
		return nil, fault.New(fault.NotFound, "none of the %d objects is stored", len(given))
	}
	return objects, nil
}

// findObject finds the one object that is meant; the mesh may be left out where
// only one has such a name.
func findObject(m Model, req *api.DeleteRequest) (*kinds.Object, error) {
	kind, err := kindOf(req.GetKind())
	if err != nil {
		return nil, err
	}
	var found []*kinds.Object
	for k, o := range m.Objects().All() {
		if k.Kind == kind && k.Name == req.GetName() && (req.GetMesh() == "" || k.Mesh == req.GetMesh()) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.New(fault.NotFound, "%s %q does not exist%s", kind, plain.Text(req.GetName()), others(m, kind, req.GetMesh()))
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Invalid, "%s %q exists in meshes %s and %s: name one", kind, plain.Text(req.GetName()), found[0].Key().Mesh, found[1].Key().Mesh)
}

// without returns the rest, or refuses to remove what it cannot stand without.
func (s *Server) without(change Change, objects []*kinds.Object) (Draft, error) {
	keys := make([]kinds.Key, 0, len(objects))
	for _, o := range objects {
		keys = append(keys, o.Key())
	}
	what := keys[0].String() + " is not deleted"
	if len(keys) > 1 {
		what = fmt.Sprintf("nothing of %d objects is deleted", len(keys))
	}
	if err := meshesAlone(change.Now(), keys); err != nil {
		return nil, err
	}
	rest, err := change.With(nil, keys...)
	if wrong, ok := errors.AsType[manifest.Errors](err); ok {
		msg := what + ", others refer to it:"
		for _, e := range wrong {
			msg += "\n  " + cmp.Or(e.Dangling, e.Msg) // what it refers to is there still
		}
		return nil, fault.New(fault.Referenced, "%s", msg)
	}
	if err != nil {
		return nil, fault.New(fault.Referenced, "%s: %v", what, err)
	}
	for _, o := range objects {
		if err := s.leftBy(o); err != nil {
			return nil, err
		}
	}
	return rest, nil
}
