package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/server/fault"
	"signet.example/server/kinds"
	"signet.example/store"
)

// Delete removes one object, unless something still refers to it.
func (s *Server) Delete(ctx context.Context, req *api.DeleteRequest) (*api.ApplyResponse, error) {
	if isAgentKind(req.GetKind()) {
		return s.deleteAgent(ctx, req)
	}
	actor, change, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	m := change.Now()
	o, err := findObject(m, req)
	if err != nil {
		return nil, err
	}
	k := o.Key()
	rest, err := s.without(change, o)
	if err != nil {
		return nil, err
	}
	resp := &api.ApplyResponse{
		Revision: m.Revision(),
		Changes:  []*api.Change{{Action: api.Change_DELETED.Enum(), Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Before: string(o.Encode())}},
		Warnings: s.cfg.Warnings(m, rest.Model()),
	}
	if req.GetDryRun() {
		return resp, nil
	}
	ready, err := rest.Try([]store.Write{{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name}, Delete: true}}, nil)
	if err != nil {
		return nil, err
	}
	resp.Revision, err = ready.Write(ctx, actor, describe(req))
	return resp, err
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
		return nil, fault.New(fault.NotFound, "%s %q does not exist%s", kind, plain.Text(req.GetName()), others(m, kind))
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Invalid, "%s %q exists in meshes %s and %s: name one", kind, plain.Text(req.GetName()), found[0].Key().Mesh, found[1].Key().Mesh)
}

// without returns the rest, or refuses to remove what it cannot stand without.
func (s *Server) without(change Change, o *kinds.Object) (Draft, error) {
	k := o.Key()
	if k.Kind == string(mesh.KindMesh) {
		for other := range change.Now().Objects().All() {
			if other.Mesh == k.Mesh && other != k {
				return nil, fault.New(fault.Referenced, "%s is not deleted: %s is in it", k, other)
			}
		}
	}
	rest, err := change.With(nil, k)
	if wrong, ok := errors.AsType[manifest.Errors](err); ok {
		msg := fmt.Sprintf("%s is not deleted, others refer to it:", k)
		for _, e := range wrong {
			msg += "\n  " + cmp.Or(e.Dangling, e.Msg) // what it refers to is there still
		}
		return nil, fault.New(fault.Referenced, "%s", msg)
	}
	if err != nil {
		return nil, fault.New(fault.Referenced, "%s is not deleted: %v", k, err)
	}
	return rest, s.leftBy(o)
}

// leftBy refuses to remove what somebody is in.
func (s *Server) leftBy(o *kinds.Object) error {
	g, ok := o.Value.(identity.NodeGroup)
	if !ok {
		return nil
	}
	for _, st := range s.cfg.Fleet.All() {
		if st.Agent.Group == g.Name && st.State == api.AgentInfo_CONNECTED {
			return fault.New(fault.Referenced, "%s is not deleted: agent %s of it is connected", o.Key(), st.Agent.ID)
		}
	}
	return nil
}
