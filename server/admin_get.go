package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/server/fault"
	"signet.example/server/kinds"
	"signet.example/store"
)

func kindOf(s string) (string, error) {
	if k, ok := kinds.Find(s); ok {
		return k.Name, nil
	}
	any := func(kinds.Kind) bool { return true }
	return "", fault.New(fault.Invalid, "%q is not a kind; there are %s", plain.Text(s), strings.Join(append(kinds.Names(any), kindAgent), ", "))
}

// Get reads back what is stored: of one kind, or of all where none is named.
func (a *admin) Get(ctx context.Context, req *api.GetRequest) (*api.GetResponse, error) {
	kind := ""
	if req.GetKind() != "" && req.GetKind() != "all" {
		var err error
		if kind, err = kindOf(req.GetKind()); err != nil {
			return nil, err
		}
	}
	m, err := a.reload(ctx)
	if err != nil {
		return nil, err
	}
	resp := &api.GetResponse{}
	for _, o := range m.all() {
		k := o.Key()
		if kind != "" && k.Kind != kind || req.GetMesh() != "" && k.Mesh != req.GetMesh() || req.GetName() != "" && k.Name != req.GetName() {
			continue
		}
		resp.Objects = append(resp.Objects, &api.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Revision: o.Revision, Yaml: string(o.Encode())})
	}
	if req.GetName() != "" && len(resp.GetObjects()) == 0 {
		return nil, fault.New(fault.NotFound, "%s %q does not exist%s", kind, plain.Text(req.GetName()), others(m, kind))
	}
	return resp, nil
}

// Delete removes one object, unless something still refers to it.
func (a *admin) Delete(ctx context.Context, req *api.DeleteRequest) (*api.ApplyResponse, error) {
	if isAgentKind(req.GetKind()) {
		return a.deleteAgent(ctx, req)
	}
	actor, m, unlock, err := a.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	o, err := findObject(m, req)
	if err != nil {
		return nil, err
	}
	k := o.Key()
	rest, err := a.without(m, o)
	if err != nil {
		return nil, err
	}
	resp := &api.ApplyResponse{
		Revision: m.revision,
		Changes:  []*api.Change{{Action: api.Change_DELETED.Enum(), Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Before: string(o.Encode())}},
		Warnings: a.warn(m, rest),
	}
	if req.GetDryRun() {
		return resp, nil
	}
	p := plan{writes: []store.Write{{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name}, Delete: true}}}
	if p.next, err = m.written(p.writes, rest); err != nil {
		return nil, err
	}
	resp.Revision, err = a.write(ctx, actor, describe(req), p)
	return resp, err
}

// findObject finds the one object that is meant; the mesh may be left out where
// only one has such a name.
func findObject(m *model, req *api.DeleteRequest) (*kinds.Object, error) {
	kind, err := kindOf(req.GetKind())
	if err != nil {
		return nil, err
	}
	var found []*kinds.Object
	for _, o := range m.all() {
		k := o.Key()
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
func (a *admin) without(m *model, o *kinds.Object) (*model, error) {
	k := o.Key()
	if k.Kind == string(mesh.KindMesh) {
		for _, other := range m.all() {
			if ok := other.Key(); ok.Mesh == k.Mesh && ok != k {
				return nil, fault.New(fault.Referenced, "%s is not deleted: %s is in it", k, ok)
			}
		}
	}
	rest, err := m.with(nil, k)
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
	if g, ok := o.Value.(identity.NodeGroup); ok {
		for _, agent := range a.roster.All() {
			if agent.Group == g.Name && a.statuses.Of(agent).State == api.AgentInfo_CONNECTED {
				return nil, fault.New(fault.Referenced, "%s is not deleted: agent %s of it is connected", k, agent.ID)
			}
		}
	}
	return rest, nil
}

// maxOthers bounds how many names a message lists.
const maxOthers = 10

// others lists what there is of a kind, for whoever asked for what there is not.
func others(m *model, kind string) string {
	keys := sortedObjects(m, kind)
	if kind == "" {
		return ""
	}
	if len(keys) == 0 {
		return "; there is none"
	}
	var list []string
	for _, k := range keys[:min(len(keys), maxOthers)] {
		list = append(list, k.Name)
	}
	if more := len(keys) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return "; there are " + strings.Join(list, ", ")
}
