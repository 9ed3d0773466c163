package server

import (
	"context"
	"iter"
	"net/netip"

	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/access"
	"signet.example/server/awaited"
	"signet.example/server/cloudmap"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/policies"
	"signet.example/server/roster"
	"signet.example/server/shared"
	"signet.example/server/views"
)

// sources is what views are made of (views.Source).
type sources struct {
	model     func() *model.Model
	roots     func() issuance.Roots
	roster    *roster.Roster
	endpoints *fleet.Endpoints
	awaited   shared.Value[*awaited.Nodes]
	policies  *policies.Revisions
	issuers   *issuers.Keys
	found     *cloudmap.Services
}

// Look implements views.Source.
func (s sources) Look() views.Look {
	m, p := s.model(), s.policies.State()
	awaits, _ := s.awaited.Get() // before what is registered
	return views.Look{
		Model: viewed{m}, Awaited: awaits, Endpoints: s.endpoints.Snapshot(), Found: s.found.Answers(), Roots: s.roots().Bundle(), Issuers: s.issuers.Resources(m.Issuers()),
		Policy: views.Policy{Current: p.Current, Keep: p.Keep, Stamp: p.Stamp},
		Roster: s.roster.Version(), Banned: s.roster.Banned(),
	}
}

// Group implements views.Source.
func (s sources) Group(agent string) (string, error) {
	a, err := s.roster.Standing(agent)
	return a.Group, err
}

// MayHost implements fleet.Hosts. An agent that is banned may not, also while its last
// report is on its way.
func (s sources) MayHost(agent string, node proxy.Ref) (group string, ok bool) {
	group, err := s.Group(agent)
	if err != nil {
		return "", false
	}
	return group, s.model().Groups().Hosts.May(group, node)
}

// MayListen implements fleet.Hosts.
func (s sources) MayListen(group string, at netip.Addr) bool {
	return s.model().Groups().Ranges.Contain(group, at)
}

// reports is who takes what agents report (fleet.Reports).
type reports struct{ s *server }

// Report implements fleet.Reports.
func (r reports) Report(p fleet.Peer, m *api.Report) (unserved map[string]string) {
	unserved = r.s.endpoints.Report(p, m)
	r.s.arrive()
	hosts, list := sources{model: r.s.model, roster: r.s.roster}, []views.Following(nil)
	for _, v := range m.GetViews() {
		ref := proxy.For(v.GetVirtualNode().GetMesh(), v.GetVirtualNode().GetName(), v.GetVirtualNode().GetGateway())
		if _, ok := hosts.MayHost(p.Agent.ID, ref); ok {
			list = append(list, views.Following{Node: ref, Version: v.GetVersion(), Proxies: int(v.GetProxies()), Envoy: v.GetEnvoyVersion(), Rejected: v.GetRejected()})
		}
	}
	r.s.views.Reported(p.Agent.ID, list)
	return unserved
}

// Left implements fleet.Reports. Of an agent that was deleted while it had a session nothing is
// kept.
func (r reports) Left(agent string) {
	r.s.endpoints.Left(agent)
	r.s.views.Left(agent, func() bool {
		session, _ := r.s.sessions.Of(agent)
		return session != nil
	})
	if _, known := r.s.roster.Get(agent); !known {
		r.s.sessions.Drop(agent)
	}
}

// withdraw runs what agents of draining proxies are sent.
func (s *server) withdraw(ctx context.Context) error {
	return s.sessions.RunWithdrawals(ctx, s.views.Without)
}

// withheld is an agent's report with what is withheld from its proxies.
func (s *server) withheld(agent string, r *api.Report) *api.Report { return s.views.Withheld(agent, r) }

// follows is who follows views (views.Access).
type follows struct{ access *access.Access }

// Follower implements views.Access.
func (f follows) Follower(ctx context.Context) (views.Follower, error) {
	who, err := f.access.Follower(ctx)
	if err != nil {
		return nil, err
	}
	return who, nil
}

// Review implements views.Access.
func (f follows) Review() { f.access.Review() }

// viewed is the model as views ask for it (views.Model).
type viewed struct{ of *model.Model }

// Graph implements views.Model.
func (v viewed) Graph() *mesh.Graph { return v.of.Graph() }

// Objects implements views.Model.
func (v viewed) Objects() ordered.Map[kinds.Key, *kinds.Object] { return v.of.Objects() }

// Managed implements views.Model.
func (v viewed) Managed(node proxy.Ref) bool { return v.of.Groups().Hosts.Any(node) }

// Rebound implements views.Model.
func (v viewed) Rebound(from views.Model) iter.Seq[proxy.Ref] {
	return v.of.Groups().Hosts.Differ(from.(viewed).of.Groups().Hosts)
}

// Grants implements views.Model.
func (v viewed) Grants() views.Grants { return v.of.Groups().Granted }
