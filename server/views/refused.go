package views

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/refused"
	"signet.example/xds"
)

// formOf identifies a resource by what Envoy may refuse of it: the policy revision that routes are
// stamped with does not count.
func formOf(r *ads.Resource) refused.Resource {
	at := refused.Resource{Type: r.Type, Name: r.Name, Form: r.Version}
	if r.Type == ads.RouteType {
		if unstamped, err := xds.Stamped(r, ""); err == nil {
			at.Form = unstamped.Version
		}
	}
	return at
}

// formIn returns the resource of a set that has that form, or nil.
func formIn(set *ads.Set, at refused.Resource) *ads.Resource {
	if r := set.Get(at.Type, at.Name); r != nil && formOf(r) == at {
		return r
	}
	return nil
}

// spared returns a set for a view, without what is withheld from an agent, or with agent "" from
// all. In place of a withheld resource stays the previous one, under the current policy and
// without endpoints that are gone. Nothing is withheld from a view whose previous set is not known.
func (v *Views) spared(in nodeInputs, key Key, k *keptView, made *ads.Set, agent string) (set *ads.Set, withheld []refused.Resource) {
	by := v.refused[key.Node]
	if len(by) == 0 {
		return made, nil
	}
	last, err := in.today(v.lastOf(key, k), made)
	if last == nil && err == nil {
		return made, nil
	}
	if err == nil {
		set = made.Withhold(func(r *ads.Resource) bool {
			was := last.Get(r.Type, r.Name)
			// What all have already stays: a proxy that refuses it keeps its own previous version.
			if !ads.Refusable(r.Type) || was != nil && was.Version == r.Version || !by.Stand(formOf(r), key.Shape.EnvoyVersion, agent) {
				return false
			}
			if made.Get(r.Type, r.Name) == r {
				withheld = append(withheld, formOf(r))
			}
			return true
		}, last)
		if withheld == nil {
			return made, nil
		}
		set, err = closeView(set.Without(ads.ViewType), joined(made, last, set), nodeTypes)
	}
	if err != nil { // a bug: all of it is what we made
		v.cfg.Metrics.BuildErrors.Inc()
		v.cfg.Log.Error("what proxies refused is not withheld", slog.String("node", key.Node.String()), slog.Any("err", err))
		return made, nil
	}
	return set, withheld
}

// withhold returns what all proxies of a view get of a set, and records what is withheld.
func (v *Views) withhold(in nodeInputs, key Key, k *keptView, made *ads.Set) (set *ads.Set) {
	set, k.withheld = v.spared(in, key, k, made, "")
	k.keeps = len(set.Type(ads.EndpointType)) > len(made.Type(ads.EndpointType))
	return set
}

// addKeeping adds the views that keep endpoint assignments of which the model no longer knows.
func (v *Views) addKeeping(again map[Key]bool) {
	for node := range v.refused {
		for key := range v.shapes[node] {
			if v.nodes[key].keeps {
				again[key] = true
			}
		}
	}
}

// today updates a previous set as far as that takes rights away: its routes get the policy in
// force, and assignments that are no longer made lose the endpoints that are gone or unhealthy.
func (in nodeInputs) today(last, made *ads.Set) (*ads.Set, error) {
	if last == nil {
		return nil, nil
	}
	last, err := last.Mapped(ads.RouteType, func(r *ads.Resource) (*ads.Resource, error) { return xds.Stamped(r, in.stamp) })
	if err != nil {
		return nil, err
	}
	return last.Mapped(ads.EndpointType, func(r *ads.Resource) (*ads.Resource, error) {
		if made.Get(r.Type, r.Name) != nil {
			return r, nil
		}
		return xds.Among(r, in.called())
	})
}

// called selects the healthy endpoints of all virtual nodes.
func (in nodeInputs) called() func(address string, port uint32) bool {
	all := map[xds.Endpoint]bool{}
	for _, name := range in.model.Graph().Meshes() {
		for _, n := range in.model.Graph().Nodes(name) {
			for _, l := range n.Listeners {
				for _, e := range in.at(n.Ref, l.Port) {
					all[e] = true
				}
			}
		}
	}
	return func(address string, port uint32) bool {
		return all[xds.Endpoint{Address: address, Port: port, Healthy: true}]
	}
}

// joined returns the View message of a set in which resources of the last one stay: with the TLS
// files that those need.
func joined(set, last, spared *ads.Set) *api.View {
	var v, before api.View
	for of, in := range map[*api.View]*ads.Set{&v: set, &before: last} {
		for _, r := range in.Type(ads.ViewType) {
			_ = proto.Unmarshal(r.Body, of) // we wrote it
		}
	}
	for _, f := range before.GetTlsFiles() {
		if !slices.Contains(v.GetTlsFiles(), f) && mentioned(spared, f) {
			v.TlsFiles = append(v.TlsFiles, f)
		}
	}
	return &v
}

// mentioned reports whether a cluster or listener of a set refers to a secret.
func mentioned(set *ads.Set, name string) bool {
	for _, t := range []string{ads.ClusterType, ads.ListenerType} {
		if slices.ContainsFunc(set.Type(t), func(r *ads.Resource) bool { return bytes.Contains(r.Body, []byte(name)) }) {
			return true
		}
	}
	return false
}

// lastOf returns what the proxies of a view have. For a view without a set it is the last run's, or
// that of another shape of the node without listeners, whose addresses differ.
func (v *Views) lastOf(key Key, k *keptView) *ads.Set {
	if last := cmp.Or(k.good, k.view.Set()); last != nil {
		return last
	}
	if last, ok := v.last[key]; ok {
		return last.Set
	}
	for other := range v.shapes[key.Node] {
		if last := v.nodes[other].view.Set(); last != nil {
			return last.Without(ads.ListenerType)
		}
	}
	return nil
}

// overrule stops withholding what an agent's proxies have accepted, or were given and did not
// answer: everything of the set except what they rejected.
func (v *Views) overrule(key Key, set *ads.Set, rejected []*api.ResourceStatus, form func(*ads.Resource) refused.Resource) {
	if v.refused[key.Node].Overrule(key.Shape.EnvoyVersion, func(at refused.Resource) bool {
		r := set.Get(at.Type, at.Name)
		return r != nil && form(r) == at && !rejects(rejected, r)
	}) {
		v.unsaved = true
	}
}

func rejects(rejected []*api.ResourceStatus, r *ads.Resource) bool {
	return slices.ContainsFunc(rejected, func(j *api.ResourceStatus) bool {
		return j.GetTypeUrl() == r.Type && j.GetName() == r.Name && j.GetVersion() == r.Version
	})
}

// refuse records a refusal.
func (v *Views) refuse(r refused.Refusal) refused.Refusal {
	v.refused.Add(r)
	v.unsaved = true
	return r
}

// forgiveGone forgets the refusals of agents that are no longer served, and marks the views that
// lack something because of them for rebuilding. The caller holds mu.
func (v *Views) forgiveGone() {
	for node, of := range v.refused {
		for _, at := range of.Forgive(func(agent string) bool {
			_, err := v.source.Group(agent)
			return err != nil
		}) {
			v.unsaved = true
			for key := range v.shapes[node] {
				if slices.Contains(v.nodes[key].withheld, at) {
					v.behind[key] = true
				}
			}
		}
	}
}

// forgive forgets refusals of resources that no view of their node has any more. It also drops the
// last run's sets of views that are made by now, or whose node is gone. The caller holds mu.
func (v *Views) forgive(g *mesh.Graph, made map[proxy.Ref]map[Key]*ads.Set) {
	for node, of := range v.refused {
		sets, all := made[node], len(v.shapes[node])
		gone := all == 0 && g.Node(node) == nil // while nobody follows the node it is not known what it would have
		if of.Keep(func(at refused.Resource) bool { return !gone && (all == 0 || len(sets) != all || anyHas(sets, at)) }) {
			v.unsaved = true
		}
		if len(of) == 0 {
			delete(v.refused, node)
		}
	}
	maps.DeleteFunc(v.last, func(key Key, _ refused.Had) bool {
		k := v.nodes[key]
		return k != nil && k.view.Set() != nil || g.Node(key.Node) == nil
	})
}

func anyHas(sets map[Key]*ads.Set, at refused.Resource) bool {
	for _, set := range sets {
		if formIn(set, at) != nil {
			return true
		}
	}
	return false
}

// Withheld adds to a report what is withheld from its proxies because others of their virtual node
// refused it. Their agent does not know: the resource has not been sent there, or not again.
func (v *Views) Withheld(agent string, r *api.Report) *api.Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r == nil || len(v.refused) == 0 {
		return r
	}
	of, _ := proto.Clone(r).(*api.Report) // Clone returns what it was given
	for _, p := range of.GetProxies() {
		for _, w := range v.withheldFrom(agent, fleet.RefOf(p), p.GetAddress(), p.GetEnvoyVersion()) {
			if slices.ContainsFunc(p.GetRejected(), func(j *api.ResourceStatus) bool {
				return j.GetTypeUrl() == w.Type && j.GetName() == w.Name && j.GetVersion() == w.Version
			}) {
				continue
			}
			p.Rejected = append(p.Rejected, &api.ResourceStatus{TypeUrl: w.Type, Name: w.Name, Version: w.Version, Message: refusedElsewhere(w)})
			p.Config = api.ProxyStatus_REJECTED.Enum()
		}
	}
	api.Reconcile(of)
	return of
}

// refusedElsewhere is why proxies are not sent what those of another agent refused.
func refusedElsewhere(r refused.Refusal) string {
	return fmt.Sprintf("refused at agent %s: %s", r.Agent, r.Message)
}

// withheldFrom lists what is withheld from an agent's proxies of a virtual node at an address in a
// version of Envoy; "" is any of them. Other shapes have resources of their own, which others may
// have refused and these do not have. The caller holds mu.
func (v *Views) withheldFrom(agent string, node proxy.Ref, address, envoy string) (list []refused.Refusal) {
	for key := range v.shapes[node] {
		if !either(key.Shape.EnvoyVersion, envoy) || !either(key.Shape.Bind, address) || !v.nodes[key].view.FollowedBy(agent) {
			continue
		}
		for _, at := range v.nodes[key].withheld {
			if r, ok := v.refused[node].First(at); ok {
				list = append(list, r)
			}
		}
	}
	slices.SortFunc(list, refused.Refusal.Compare)
	return slices.Compact(list)
}

// either reports whether two are one, or one of them is not known.
func either(a, b string) bool { return a == b || a == "" || b == "" }

// tell logs and audits refusals, once for each virtual node and agent.
func (v *Views) tell(ctx context.Context, found []refused.Refusal) {
	type whose struct {
		node  proxy.Ref
		agent string
	}
	count := map[whose]int{}
	for _, r := range found {
		count[whose{r.Node, r.Agent}]++
	}
	for _, r := range found {
		of := whose{r.Node, r.Agent}
		if n := count[of]; n > 0 {
			v.cfg.Log.ErrorContext(ctx, "a proxy refused what its virtual node was to have: it keeps the last good one, and another host tries it", slog.String("node", r.Node.String()), slog.String("agent", r.Agent),
				slog.String("type", r.Type), slog.String("name", plain.Text(r.Name)), slog.String("version", plain.Text(r.Version)), slog.Int("resources", n), slog.String("err", r.Message))
			v.cfg.Refused(ctx, r, n)
		}
		delete(count, of)
	}
}
