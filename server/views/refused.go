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

// formOf is what Envoy can have reasons to refuse of a resource: not the policy that routes are
// stamped with.
func formOf(r *ads.Resource) refused.Resource {
	at := refused.Resource{Type: r.Type, Name: r.Name, Form: r.Version}
	if r.Type == ads.RouteType {
		if unstamped, err := xds.Stamped(r, ""); err == nil {
			at.Form = unstamped.Version
		}
	}
	return at
}

// formIn is the resource of a set that has a form, nil for none.
func formIn(set *ads.Set, at refused.Resource) *ads.Resource {
	if r := set.Get(at.Type, at.Name); r != nil && formOf(r) == at {
		return r
	}
	return nil
}

// spared is a set that was made for a view without what is withheld from an agent, or for ""
// from all who have not tried it. What is kept in its place is under the policy of today, and
// calls nobody who is gone. Of a view of which nothing is known nothing is withheld.
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
			// What all have already is not taken away: who refuses it has kept what it had.
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
	if err != nil { // it is all of our own making
		v.cfg.Metrics.BuildErrors.Inc()
		v.cfg.Log.Error("what proxies refused is not withheld", slog.String("node", key.Node.String()), slog.Any("err", err))
		return made, nil
	}
	return set, withheld
}

// withhold is what all have of a set that was made for a view.
func (v *Views) withhold(in nodeInputs, key Key, k *keptView, made *ads.Set) (set *ads.Set) {
	set, k.withheld = v.spared(in, key, k, made, "")
	k.keeps = len(set.Type(ads.EndpointType)) > len(made.Type(ads.EndpointType))
	return set
}

// addKeeping adds the views that keep assignments which no change of the model can name.
func (v *Views) addKeeping(again map[Key]bool) {
	for node := range v.refused {
		for key := range v.shapes[node] {
			if v.nodes[key].keeps {
				again[key] = true
			}
		}
	}
}

// today is a set that proxies had as it would be made now, as far as that takes rights away:
// routes under the policy in force, and of assignments that are not made any more those endpoints
// that callers are sent to.
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

// called are the endpoints of all virtual nodes that are healthy.
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

// joined is what is told of a set beside its resources, with what those need that stay from
// the last one: names of files that spared still has.
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

// mentioned reports whether a cluster or listener of a set has the name of a secret in it.
func mentioned(set *ads.Set, name string) bool {
	for _, t := range []string{ads.ClusterType, ads.ListenerType} {
		if slices.ContainsFunc(set.Type(t), func(r *ads.Resource) bool { return bytes.Contains(r.Body, []byte(name)) }) {
			return true
		}
	}
	return false
}

// lastOf is what proxies of a view have; of one that has none so far, what those in another
// shape have, less their listeners, which are in other places.
func (v *Views) lastOf(key Key, k *keptView) *ads.Set {
	if last := cmp.Or(k.good, k.view.Set()); last != nil {
		return last
	}
	if last := v.last[key]; last != nil {
		return last
	}
	for other := range v.shapes[key.Node] {
		if last := v.nodes[other].view.Set(); last != nil {
			return last.Without(ads.ListenerType)
		}
	}
	return nil
}

// refuses takes what an agent says that its proxies refused, as far as it is what their
// views have, and returns what is new of it.
func (v *Views) refuses(agent string, f Following) (found []refused.Refusal) {
	n := v.refused.Count()
	for _, j := range f.Rejected {
		r := v.sent(f.Node, j)
		if r == nil || proxy.OfItsHost(j.GetMessage()) || !v.runs(agent, f) {
			continue
		}
		at := formOf(r)
		if v.refused[f.Node].Has(at, agent, f.Envoy) || n+len(found) >= refused.Most || v.taken(f, at) {
			continue // who refuses it keeps what it had, and its agent reports that
		}
		found = append(found, v.refuse(refused.Refusal{
			Node: f.Node, Agent: agent, Envoy: f.Envoy, Type: r.Type, Name: r.Name, Version: r.Version, Form: at.Form, Message: plain.Text(j.GetMessage()),
		}))
	}
	return found
}

// runs reports whether an agent follows a virtual node with the version of Envoy that it speaks of.
func (v *Views) runs(agent string, f Following) bool {
	for key := range v.shapes[f.Node] {
		if key.Shape.EnvoyVersion == f.Envoy && v.nodes[key].view.FollowedBy(agent) {
			return true
		}
	}
	return false
}

// taken reports whether proxies of a virtual node and version of Envoy have taken a resource: it is
// nothing that no Envoy takes, and must not be taken away from those who run it.
func (v *Views) taken(f Following, at refused.Resource) bool {
	for key := range v.shapes[f.Node] {
		if key.Shape.EnvoyVersion == f.Envoy && formIn(v.nodes[key].good, at) != nil {
			return true
		}
	}
	return false
}

// sent is a resource that proxies of a virtual node have, or are to have, and that Envoy can
// refuse; nil for none of that version.
func (v *Views) sent(node proxy.Ref, j *api.ResourceStatus) *ads.Resource {
	if !ads.Refusable(j.GetTypeUrl()) {
		return nil
	}
	r := v.rollouts[node]
	for key := range v.shapes[node] {
		sets := []*ads.Set{v.nodes[key].view.Set()}
		if r != nil {
			sets = append(sets, r.made[key], r.set)
		}
		for _, set := range sets {
			if has := set.Get(j.GetTypeUrl(), j.GetName()); has != nil && has.Version == j.GetVersion() {
				return has
			}
		}
	}
	return nil
}

// overrule has what proxies of an agent have taken, or were given, withheld from nobody any more,
// less what these rejected themselves.
func (v *Views) overrule(key Key, set *ads.Set, rejected []*api.ResourceStatus) {
	if v.refused[key.Node].Overrule(key.Shape.EnvoyVersion, func(at refused.Resource) bool {
		r := formIn(set, at)
		return r != nil && !rejects(rejected, r)
	}) {
		v.unsaved = true
	}
}

func rejects(rejected []*api.ResourceStatus, r *ads.Resource) bool {
	return slices.ContainsFunc(rejected, func(j *api.ResourceStatus) bool {
		return j.GetTypeUrl() == r.Type && j.GetName() == r.Name && j.GetVersion() == r.Version
	})
}

// refuse notes a refusal.
func (v *Views) refuse(r refused.Refusal) refused.Refusal {
	v.refused.Add(r)
	v.unsaved = true
	return r
}

// forgiveGone forgets the refusals of agents that are not served any more, and has the views
// made again that lack something because of them. The caller holds mu.
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

// forgive forgets refusals of what is not made any more for any view of their node, and what
// views had in the last run that are made by now, or of which there is no node any more. The
// caller holds mu.
func (v *Views) forgive(g *mesh.Graph, made map[proxy.Ref]map[Key]*ads.Set) {
	for node, of := range v.refused {
		sets, all := made[node], len(v.shapes[node])
		gone := all == 0 && g.Node(node) == nil // where nobody follows it now, nothing is known of it
		if of.Keep(func(at refused.Resource) bool { return !gone && (all == 0 || len(sets) != all || anyHas(sets, at)) }) {
			v.unsaved = true
		}
		if len(of) == 0 {
			delete(v.refused, node)
		}
	}
	maps.DeleteFunc(v.last, func(key Key, _ *ads.Set) bool {
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

// Withheld is a report with what is not sent to its proxies since some of their virtual
// node refused it: their agent does not know, for it has not been tried there, or not again.
func (v *Views) Withheld(r *api.Report) *api.Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r == nil || len(v.refused) == 0 {
		return r
	}
	of, _ := proto.Clone(r).(*api.Report) // Clone returns what it was given
	for _, p := range of.GetProxies() {
		for _, w := range v.withheldFrom(fleet.RefOf(p), p.GetEnvoyVersion()) {
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

// withheldFrom lists what proxies of a virtual node and version of Envoy are not sent, those
// whose version is not known included. The caller holds mu.
func (v *Views) withheldFrom(node proxy.Ref, envoy string) (list []refused.Refusal) {
	for key := range v.shapes[node] {
		if of := key.Shape.EnvoyVersion; of != "" && envoy != "" && of != envoy {
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

// unheard reports whether agents have said something since hear.
func (v *Views) unheard() bool {
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	return len(v.heard.news) > 0
}

// tell has the operator know what was refused, once for each virtual node and agent.
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
