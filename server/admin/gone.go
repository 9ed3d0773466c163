package admin

import (
	"signet.example/api"
	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/server/fault"
	"signet.example/server/kinds"
	"signet.example/store"
)

// meshesAlone refuses to delete a mesh without what is in it.
func meshesAlone(now Model, gone []kinds.Key) error {
	leaves := make(map[kinds.Key]bool, len(gone))
	for _, k := range gone {
		leaves[k] = true
	}
	for _, k := range gone {
		if k.Kind != string(mesh.KindMesh) {
			continue
		}
		for other := range now.Objects().All() {
			if other.Mesh == k.Mesh && !leaves[other] {
				return fault.New(fault.Referenced, "%s is not deleted: %s is in it", k, other)
			}
		}
	}
	return nil
}

// deletionsOf are those of objects that are stored.
func deletionsOf(objects []*kinds.Object) ([]*api.Change, []store.Write) {
	var changes []*api.Change
	var writes []store.Write
	for _, o := range objects {
		k := o.Key()
		changes = append(changes, &api.Change{Action: api.Change_DELETED.Enum(), Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Before: string(o.Encode()), OwnerBefore: o.Owner})
		writes = append(writes, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Owner: o.Owner}, Delete: true})
	}
	return changes, writes
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
