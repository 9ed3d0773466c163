package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
)

// decided is how far a change of what policies deny has come: the agents of the proxies load the
// revision that has it, routes are stamped with that, and the proxies take the routes.
type decided struct {
	policies  Policies
	routing   Routing
	revisions map[string]bool // those that have the change: the newest at the beginning, and those after it
	stamped   bool            // routes carry one of these
	since     uint64          // the moment of that, for Routing
}

// decided begins with the revision of what is stored now. It is of no use where no node's
// authorization changes, and costs nothing then.
func (s *Server) decided(ctx context.Context, nodes []*api.Effect_Node) (*decided, error) {
	d := &decided{policies: s.cfg.Policies, routing: s.cfg.Routing, revisions: map[string]bool{}}
	if !slices.ContainsFunc(nodes, func(n *api.Effect_Node) bool { return n.GetAuthorization() != "" }) {
		d.stamped = true
		return d, nil
	}
	if err := d.policies.Renewed(ctx); err != nil {
		return nil, fmt.Errorf("the policy revision of what is stored cannot be made: %w", err)
	}
	d.look(ctx)
	return d, nil
}

// look follows the revisions, from the one in force at the beginning on.
func (d *decided) look(ctx context.Context) {
	newest, stamp := d.policies.InForce()
	if d.revisions[newest] = true; !d.stamped && d.revisions[stamp] {
		d.stamped, d.since = true, d.routing.Mark(ctx)
	}
}

// lacks reports what an agent's proxies of a virtual node lack before they decide so, "" for nothing.
func (d *decided) lacks(at fleet.Status, of proxy.Ref) string {
	if !d.revisions[at.Report.GetPolicyRevision()] {
		return "its agent has not loaded the policy that has it"
	}
	if !d.stamped {
		return "its routes do not ask for the policy that has it, which not all agents have loaded"
	}
	if has, _ := d.routing.Reached(at.Agent.ID, of, d.since); !has {
		return "it has not taken the routes that ask for the policy that has it"
	}
	return ""
}

// undecided adds to those whom an apply concerns the virtual nodes whose authorization it has as it was, and
// by which a proxy does not decide yet: whoever applies again what was not reached is told that.
func (s *Server) undecided(ctx context.Context, e *api.Effect, in Model, given []*api.Change) error {
	asked := map[proxy.Ref]*api.Effect_Node{}
	for _, c := range given {
		if c.GetAction() != api.Change_UNCHANGED {
			continue
		}
		for _, n := range in.Graph().AuthorizedBy(mesh.NameOf(mesh.Kind(c.GetKind()), c.GetMesh(), c.GetName())) {
			of := &api.VirtualNodeRef{Mesh: n.Mesh, Name: n.Name, Gateway: n.Ref.Gateway()}
			asked[n.Ref] = &api.Effect_Node{Node: of, Authorization: n.Authorization()}
		}
	}
	now, err := s.decided(ctx, slices.Collect(maps.Values(asked)))
	if err != nil {
		return err
	}
	for _, st := range s.cfg.Fleet.All() {
		for _, p := range st.Report.GetProxies() {
			if n := asked[fleet.RefOf(p)]; n != nil && st.Serves() && fleet.Runs(p) && now.lacks(st, refOfNode(n)) != "" {
				concern(e, n)
			}
		}
	}
	return nil
}

// concern adds a node to an effect, or its authorization to what the effect has of it.
func concern(e *api.Effect, n *api.Effect_Node) {
	i := slices.IndexFunc(e.GetNodes(), func(o *api.Effect_Node) bool { return refOfNode(o) == refOfNode(n) })
	if i < 0 {
		e.Nodes = append(e.GetNodes(), n)
		return
	}
	e.Nodes[i].Authorization = n.GetAuthorization()
}
