package views

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/cloudmap"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
	"signet.example/store"
)

// viewed is a model as views see it, as the server's is.
type viewed struct{ *model.Model }

func (m viewed) Managed(node proxy.Ref) bool { return m.Groups().Hosts.Any(node) }
func (m viewed) Rebound(from Model) iter.Seq[proxy.Ref] {
	return m.Groups().Hosts.Differ(from.(viewed).Groups().Hosts)
}
func (m viewed) Grants() Grants { return m.Groups().Granted }

// server is what lies between a store and what agents and proxies are sent, with two hosts, and
// random things that happen to it. It runs in a bubble of synctest.
type server struct {
	*rand.Rand
	t *testing.T

	store     *store.Store
	model     *model.Model
	look      Look // except for what is of the store or the endpoints
	groups    map[string]string
	endpoints *fleet.Endpoints
	v         *Views
	ads       *ads.Server
	streams   map[streamOf]context.CancelFunc

	ways  ways
	known map[any]uintptr // which encoding of each service, and which section, was remembered last
}

// streamOf is an agent's stream of a virtual node.
type streamOf struct {
	agent string
	node  proxy.Ref
}

var theTwo = []string{"one", "two"}

func serverOf(t *testing.T, seed uint64, w ways) *server {
	t.Helper()
	st, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		Rand: rand.New(rand.NewPCG(seed, 15)), t: t, store: st, model: modeltest.Empty(t), ways: w,
		look:   Look{Policy: Policy{Current: &api.PolicyRevision{Id: "p"}, Stamp: "p"}, Roots: &api.Bundle{}},
		groups: map[string]string{"one": "g1", "two": "g1"}, streams: map[streamOf]context.CancelFunc{},
	}
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	s.endpoints = fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: s, Grace: time.Minute, Clock: time.Now})
	s.v = newViews(s, s)
	s.ads = &ads.Server{Views: s.v, Peer: func(ctx context.Context) string { name, _ := ctx.Value(callerKey{}).(string); return name }}
	t.Cleanup(func() {
		for _, end := range s.streams {
			end()
		}
		s.v.stop()
		synctest.Wait()
		_ = st.Close()
	})
	s.stores(0, s.writes(modeltest.Objects(t, s.model, modeltest.Everything()), nil))
	s.catchUp()
	s.follows()
	s.rebuild(nil)
	return s
}

// Look implements Source.
func (s *server) Look() Look {
	in := s.look
	in.Model, in.Endpoints = viewed{s.model}, s.endpoints.Snapshot()
	return in
}

// Group implements Source.
func (s *server) Group(agent string) (string, error) {
	if g := s.groups[agent]; g != "" {
		return g, nil
	}
	return "", fault.Identity
}

// MayHost implements fleet.Hosts.
func (s *server) MayHost(agent string, node proxy.Ref) (string, bool) {
	return s.groups[agent], s.model.Groups().Hosts.May(s.groups[agent], node)
}

// MayListen implements fleet.Hosts.
func (s *server) MayListen(group string, at netip.Addr) bool {
	return s.model.Groups().Ranges.Contain(group, at)
}

// Follower implements Access: everybody may follow everything.
func (s *server) Follower(ctx context.Context) (Follower, error) { return access{}.Follower(ctx) }

// Review implements Access: nobody follows what is not there.
func (s *server) Review() {
	for of := range s.streams {
		if s.model.Graph().Node(of.node) == nil {
			s.leaves(of)
		}
	}
}

func (s *server) leaves(of streamOf) {
	s.streams[of]()
	delete(s.streams, of)
	synctest.Wait()
}

// following are the streams that there are, in one order whenever a seed is run.
func (s *server) following() []streamOf {
	return slices.SortedFunc(maps.Keys(s.streams), func(a, b streamOf) int {
		return cmp.Or(cmp.Compare(a.agent, b.agent), a.node.Compare(b.node))
	})
}

// listening is a stream that asks for one type of a node's view and is silent then.
type listening struct {
	silent
	node *corev3.Node
}

func (l *listening) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	if l.asked {
		<-l.ctx.Done()
		return nil, l.ctx.Err()
	}
	l.asked = true
	return &discoveryv3.DeltaDiscoveryRequest{Node: l.node, TypeUrl: ads.ClusterType}, nil
}

// follows has agents follow what they do not follow yet: each its own view, and some of the nodes.
func (s *server) follows() {
	for _, name := range theTwo {
		if _, err := s.v.agentView(s.t.Context(), agent(name)); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, n := range s.model.Graph().Nodes("m") {
		of, shape := streamOf{theTwo[s.IntN(2)], n.Ref}, anyShape
		if s.IntN(3) == 0 {
			shape.Bind, shape.EnvoyVersion = "127.0.0.3", "1.40.0"
		}
		if s.streams[of] != nil {
			continue
		}
		ctx, end := context.WithCancel(context.WithValue(s.t.Context(), callerKey{}, of.agent))
		s.streams[of] = end
		stream := &listening{silent{ctx: ctx}, &corev3.Node{Id: n.String(), Metadata: shape.Metadata()}}
		go func() { _ = s.ads.DeltaAggregatedResources(stream) }() // ends with its context
	}
	synctest.Wait()
}

// change is of a few objects at once, as an operator's apply is.
func (s *server) change(m *model.Model) (put []*kinds.Object, remove []kinds.Key) {
	named := map[kinds.Key]bool{}
	for range 1 + s.IntN(3) {
		if s.IntN(3) == 0 {
			for _, k := range s.gone(m) {
				if !named[k] {
					remove = append(remove, k)
				}
				named[k] = true
			}
			continue
		}
		text := modeltest.RandomObject(s.Rand)
		if s.IntN(10) == 0 {
			text = modeltest.RandomMesh(s.Rand)
		}
		if o := modeltest.Objects(s.t, m, text)[0]; !named[o.Key()] {
			put, named[o.Key()] = append(put, o), true
		}
	}
	return put, remove
}

// gone is an object of any kind, but a mesh, which all is in; and all that says its name, where that
// is to be deleted with it.
func (s *server) gone(m *model.Model) (list []kinds.Key) {
	kind, with := kinds.All()[s.IntN(len(kinds.All()))].Name, s.IntN(2) == 0
	for k := range m.Objects().All() {
		if k.Kind == kind && kind != string(mesh.KindMesh) {
			list = append(list, k)
		}
	}
	if len(list) == 0 {
		return nil
	}
	k := list[len(list)-1] // the last is seldom referred to
	if s.IntN(2) == 0 {
		k = list[s.IntN(len(list))]
	}
	list = []kinds.Key{k}
	if name := regexp.MustCompile(`\b` + k.Name + `\b`); with && !mesh.Kind(kind).Wide() { // of which all says the name
		for other, o := range m.Objects().All() {
			if other != k && name.Match(o.Encode()) {
				list = append(list, other)
			}
		}
	}
	return list
}

// checked is what a random change makes of a model, and how it is written; no writes for one that is
// refused.
func (s *server) checked(m *model.Model) (*model.Model, []store.Write) {
	put, remove := s.change(m)
	next, err := m.With(put, remove...)
	if err != nil {
		return m, nil
	}
	writes := s.writes(put, remove)
	if next, err = m.Written(writes, next); err != nil {
		s.t.Fatal(err)
	}
	return next, writes
}

// writes are those of a change, which may give each object to another owner.
func (s *server) writes(put []*kinds.Object, remove []kinds.Key) (list []store.Write) {
	for _, o := range put {
		k := o.Key()
		list = append(list, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Manifest: o.Encode(), Owner: []string{"", "team"}[s.IntN(2)]}})
	}
	for _, k := range remove {
		list = append(list, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name}, Delete: true})
	}
	return list
}

// stores has the store take what was checked against a revision.
func (s *server) stores(basis uint64, list []store.Write) {
	s.t.Helper()
	if _, err := s.store.Apply(s.t.Context(), "test", "a test", basis, list); err != nil {
		s.t.Fatal(err)
	}
}

// catchUp serves what the store has.
func (s *server) catchUp() {
	s.t.Helper()
	changes, err := s.store.Changes(s.t.Context(), s.model.Revision())
	if err != nil {
		s.t.Fatal(err)
	}
	next, err := s.model.Follow(changes)
	if err != nil {
		s.t.Fatal(err)
	}
	s.install(next)
}

// install serves a model from the next rebuild on.
func (s *server) install(next *model.Model) {
	s.ways.models(s.model, next)
	s.model = next
	s.endpoints.Review()
}

// rebuild has views follow.
func (s *server) rebuild(tried *Candidate) {
	was, groups := s.v.at, maps.Clone(s.v.byGroup)
	if len(s.v.behind) > 0 {
		s.ways.took("a view that was behind is made again")
	}
	s.v.Rebuild(s.t.Context(), tried)
	again := s.v.at.affected(was)
	s.ways.reached(again)
	s.ways.tried(s.v, tried)
	s.ways.grouped(groups, s.v.byGroup)
	s.known = s.ways.remembered(s.v, again, s.known)
}

// applies is what an operator's apply does; something else may happen before it is written.
func (s *server) applies() {
	next, writes := s.checked(s.model)
	if writes == nil {
		return
	}
	tried := s.v.Try(viewed{s.model}, viewed{next}, func(at proxy.Ref, err error) { s.t.Errorf("%s: %v", at, err) }) // nothing here is such
	if s.IntN(4) == 0 {
		s.around()
	}
	s.stores(s.model.Revision(), writes)
	s.install(next)
	s.rebuild(tried)
}

// elsewhere is that another server writes, which nobody tries here.
func (s *server) elsewhere() {
	m := s.model
	for range 1 + s.IntN(3) {
		next, writes := s.checked(m)
		if writes != nil {
			s.stores(m.Revision(), writes)
		}
		m = next
	}
	s.catchUp()
	if s.IntN(2) == 0 {
		s.follows() // of the newer model, before the others are made again
	}
	s.rebuild(nil)
}

// around is that something changes of what views are made of beside the model.
func (s *server) around() {
	name := theTwo[s.IntN(2)]
	switch s.IntN(8) {
	default:
		s.reports(name)
	case 2:
		s.finds()
	case 3:
		s.look.Policy.Stamp = fmt.Sprint("p", s.IntN(3))
		s.ways.took("routes have another stamp")
	case 4:
		s.groups[name] = fmt.Sprint("g", 1+s.IntN(2))
		s.look.Roster++
		s.endpoints.Review()
		s.ways.took("an agent is in another group")
	case 5:
		s.look.Roster++
		s.look.Banned = [][]string{nil, {"three"}}[s.IntN(2)]
		s.look.Issuers = [][]*api.JWTIssuer{nil, {{Name: "i", Issuer: "a"}}, {{Name: "i", Issuer: "b"}}}[s.IntN(3)]
		s.look.Roots = &api.Bundle{SignedRootSet: fmt.Append(nil, s.IntN(2))}
		s.ways.took("all agents are told something else")
	}
}

// reports has an agent say where its proxies are.
func (s *server) reports(name string) {
	before, report := s.endpoints.Snapshot(), &api.Report{}
	for i := range s.IntN(4) {
		report.Proxies = append(report.Proxies, &api.ProxyStatus{
			Name: fmt.Sprint("p", i), VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: fmt.Sprint("n", 1+s.IntN(2))},
			Address: fmt.Sprintf("127.0.0.%d", 10+s.IntN(2)), Ports: [][]uint32{{80}, {80, 90}, {81}}[s.IntN(3)], Failing: [][]uint32{nil, nil, {80}}[s.IntN(3)], Healthy: s.IntN(3) > 0, State: api.ProxyStatus_READY.Enum(),
		})
	}
	s.endpoints.Report(fleet.Peer{Agent: store.Agent{ID: name}, Remote: netip.MustParseAddr("127.0.0.1")}, report)
	s.ways.endpoints(before, s.endpoints.Snapshot())
}

// finds has AWS Cloud Map answer something else.
func (s *server) finds() {
	rows := []map[string]any{}
	for i := range 3 {
		if s.IntN(2) == 0 {
			rows = append(rows, map[string]any{"mesh": "m", "node": fmt.Sprint("n", i+1), "instances": []map[string]any{{"address": fmt.Sprint("10.0.0.", 1+s.IntN(3))}}})
		}
	}
	path := filepath.Join(s.t.TempDir(), "found.json")
	text, err := json.Marshal(rows)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	found, err := cloudmap.OpenFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	s.look.Found = found.Load()
	s.ways.took("other instances are found")
}

// answer has agents say that their proxies have what they were sent, or refuse a part of it.
func (s *server) answer(refusing bool) {
	lists := map[string][]Following{"one": nil, "two": nil}
	for _, of := range s.following() {
		lists[of.agent] = append(lists[of.agent], s.answerOf(of, refusing))
	}
	for name, list := range lists {
		s.v.heard.Cost(name, 0) // it rests no more
		s.v.Reported(name, list)
	}
	s.v.hear(s.t.Context())
}

func (s *server) answerOf(of streamOf, refusing bool) Following {
	f := Following{Node: of.node, Proxies: 1}
	for key := range s.v.shapes[of.node] {
		k := s.v.nodes[key]
		if !k.view.FollowedBy(of.agent) {
			continue
		}
		set := k.view.Set()
		if r := s.v.rollouts[of.node]; r != nil && r.agent == of.agent && r.key == key {
			set = r.set
		}
		f.Version, f.Envoy = viewVersion(set), key.Shape.EnvoyVersion
		if clusters := set.Type(ads.ClusterType); refusing && s.IntN(4) == 0 && len(clusters) > 0 {
			c := clusters[s.IntN(len(clusters))]
			f.Rejected = append(f.Rejected, &api.ResourceStatus{TypeUrl: c.Type, Name: c.Name, Version: c.Version, Message: "no"})
		}
	}
	return f
}

// settle has agents answer until no change is on its way from host to host.
func (s *server) settle() {
	for range 100 {
		if s.answer(false); len(s.v.rollouts) == 0 {
			return
		}
	}
	s.t.Fatalf("%d changes are still on their way", len(s.v.rollouts))
}

// step is that one thing happens, and that agents answer, or refuse, or say nothing.
func (s *server) step() {
	switch s.IntN(12) {
	case 0, 1:
		s.around()
		s.rebuild(nil)
	case 2:
		s.elsewhere()
	case 3:
		s.follows()
	case 4:
		if all := s.following(); len(all) > 0 {
			s.leaves(all[s.IntN(len(all))])
		}
	case 5:
		s.v.release() // before what comes due and after it, under the lock that this takes, too
		time.Sleep(2 * viewIdle)
		s.v.release()
	default:
		s.applies()
	}
	s.ways.underWay(s.v)
	switch s.IntN(4) {
	case 0, 1:
		s.settle()
	case 2:
		s.answer(true)
	}
}
