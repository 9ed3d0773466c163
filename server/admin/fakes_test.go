package admin_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/peer"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/internal/unixsock"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/policy/repo"
	"signet.example/proxy"
	"signet.example/server/admin"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/kinds"
	"signet.example/store"
	"signet.example/xds/effect"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// desk is an operator's, with everything that is asked in memory. What is done is
// noted in order.
type desk struct {
	t      *testing.T
	admin  *admin.Server
	cfg    admin.Config
	calls  *prometheus.CounterVec
	unsaid prometheus.Counter // audit rows that could not be written
	done   []string
	noting sync.Mutex // held where done grows: some do things at once

	objects  map[kinds.Key]*kinds.Object
	revision uint64
	cannot   map[string]error // of virtual nodes, by name: why they cannot be translated
	effects  []effect.Effect  // of any change
	agents   []fleet.Status
	reached  map[string]reached // by agent
	reaching sync.Mutex         // held where reached changes while it is read
	moving   bool               // something is on its way from host to host
	log      []*api.Cert
	decided  func(*api.DecisionFilter) (list []*api.Decision, silent []string)
	newest   string // the policy revision in force, where stamp is that of routes; "" for p
	stamp    string
	renewed  error  // of making the revision of what is stored
	look     func() // where it is set: called when it is asked how far the log is known
	unread   error
	silent   error // of the audit trail
	stopping chan struct{}
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{
		t: t, stopping: make(chan struct{}), objects: map[kinds.Key]*kinds.Object{}, cannot: map[string]error{},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "calls"}, []string{"method", "code"}), unsaid: prometheus.NewCounter(prometheus.CounterOpts{Name: "unsaid"}),
	}
	d.cfg = admin.Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("test.example"), Clock: func() time.Time { return noon }, Log: slog.New(slog.DiscardHandler),
		Metrics: admin.Metrics{AuditErrors: d.unsaid, Calls: d.calls}, Stopping: d.stopping,
		Trail: d, Note: func(_ context.Context, _, action, detail string) { d.note("row " + action + " " + detail) },
		Stored: storedOf{d}, Fleet: fleetOf{d}, AgentRows: rowsOf{d}, Certificates: certsOf{d}, Sessions: sessionsOf{d}, Policies: policiesOf{d}, Tokens: tokensOf{d}, Routing: routingOf{d}, Proxies: proxiesOf{},
		Pin: func() []byte { return make([]byte, 32) }, Findings: func(context.Context) []*api.Finding { return nil },
		Warnings: func(admin.Model, admin.Model, ...kinds.Key) []string { return nil },
		LogDirs:  func() []string { return []string{"/var/log/proxies"} }, CheckGroup: func(identity.NodeGroup) error { return nil },
	}
	d.admin = admin.New(d.cfg)
	return d
}

func (d *desk) note(what string) {
	d.noting.Lock()
	defer d.noting.Unlock()
	d.done = append(d.done, what)
}

// ctx is an operator's.
func (d *desk) ctx() context.Context {
	return peer.NewContext(d.t.Context(), &peer.Peer{AuthInfo: unixsock.Peer{UID: 7, PID: 8}})
}

func (d *desk) wants(done ...string) {
	d.t.Helper()
	if !slices.Equal(d.done, done) {
		d.t.Errorf("it did\n%q, want\n%q", d.done, done)
	}
	d.done = nil
}

// Audit implements admin.Trail.
func (d *desk) Audit(_ context.Context, actor, action, detail string) error {
	if d.silent == nil {
		d.note(actor + ": " + action + " " + detail)
	}
	return d.silent
}

// model is what is stored.
type model struct {
	revision uint64
	objects  ordered.Map[kinds.Key, *kinds.Object]
	graph    *mesh.Graph
}

func (m model) Revision() uint64                               { return m.revision }
func (m model) Graph() *mesh.Graph                             { return m.graph }
func (m model) Objects() ordered.Map[kinds.Key, *kinds.Object] { return m.objects }
func (m model) Groups() groups.Groups                          { return groups.Groups{} }

func modelOf(revision uint64, objects map[kinds.Key]*kinds.Object) (model, error) {
	m := model{revision: revision}
	var resources []*mesh.Resource
	for k, o := range objects {
		m.objects = m.objects.With(k, o)
		if o.Resource != nil {
			resources = append(resources, o.Resource)
		}
	}
	var err error
	m.graph, err = mesh.NewGraph(resources)
	return m, err
}

type storedOf struct{ d *desk }

func (s storedOf) Newest(context.Context) (admin.Model, error) {
	return modelOf(s.d.revision, s.d.objects)
}

func (s storedOf) Begin(context.Context) (admin.Change, func(), error) {
	m, err := modelOf(s.d.revision, s.d.objects)
	s.d.note("begin")
	return changeOf{s.d, m}, func() { s.d.note("end") }, err
}

// changeOf is a change at each of its steps.
type changeOf struct {
	d *desk
	m model
}

func (c changeOf) Now() admin.Model { return c.m }

func (c changeOf) With(put []*kinds.Object, remove ...kinds.Key) (admin.Draft, error) {
	next := map[kinds.Key]*kinds.Object{}
	for k, o := range c.d.objects {
		if !slices.Contains(remove, k) {
			next[k] = o
		}
	}
	for _, o := range put {
		next[o.Key()] = o
	}
	m, err := modelOf(c.d.revision, next)
	if err != nil {
		return nil, err
	}
	return draftOf{changeOf{c.d, m}}, nil
}

type draftOf struct{ c changeOf }

func (f draftOf) Model() admin.Model { return f.c.m }

func (f draftOf) Try(writes []store.Write, refused func(proxy.Ref, error)) (admin.Ready, error) {
	for k, o := range f.c.m.objects.All() { // as they will be read back
		if old := f.c.d.objects[k]; old != nil {
			o.Owner, o.Revision = old.Owner, old.Revision
		}
	}
	for _, w := range writes {
		if err := f.c.d.cannot[w.Name]; err != nil && refused != nil {
			refused(proxy.Node(w.Mesh, w.Name), err)
		}
		if o := f.c.m.objects.Get(kinds.Key{Kind: w.Kind, Mesh: w.Mesh, Name: w.Name}); o != nil {
			o.Owner, o.Revision = w.Owner, f.c.m.revision+1
		}
	}
	return f, nil
}

func (f draftOf) Effects(bool) ([]effect.Effect, int, error) {
	f.c.d.note("effects")
	return f.c.d.effects, 0, nil
}

func (f draftOf) Write(_ context.Context, actor, asked string) (uint64, error) {
	d := f.c.d
	d.note("write " + actor + ": " + asked)
	d.revision++
	clear(d.objects)
	maps.Insert(d.objects, f.c.m.objects.All())
	return d.revision, nil
}

type fleetOf struct{ d *desk }

func (f fleetOf) All() []fleet.Status { return f.d.agents }

func (f fleetOf) Get(id string) (fleet.Status, bool) {
	i := slices.IndexFunc(f.d.agents, func(st fleet.Status) bool { return st.Agent.ID == id })
	if i < 0 {
		return fleet.Status{}, false
	}
	return f.d.agents[i], true
}

func (f fleetOf) Follow(context.Context) error { f.d.note("follow"); return nil }
func (f fleetOf) Forget(id string)             { f.d.note("forget " + id) }

type rowsOf struct{ d *desk }

func (r rowsOf) BanAgent(_ context.Context, _, id, reason string) error {
	r.d.note("ban " + id + " " + reason)
	return nil
}

func (r rowsOf) DeleteAgent(_ context.Context, _, id string) error {
	r.d.note("delete " + id)
	return nil
}

func (r rowsOf) Revision() uint64 { return r.d.revision }

type certsOf struct{ d *desk }

func (c certsOf) Of(string) *api.LogRecord { return nil }

func (c certsOf) Read() uint64 {
	if c.d.look != nil {
		c.d.look()
	}
	return uint64(len(c.d.log))
}

func (c certsOf) History(_ context.Context, each func(*api.Cert) error) error {
	c.d.note("log")
	for _, cert := range c.d.log {
		if err := each(cert); err != nil {
			return err
		}
	}
	return nil
}

func (c certsOf) CaughtUp(context.Context) error {
	c.d.note("caught up")
	return c.d.unread
}

func (c certsOf) HeldBy(string) (int32, time.Time) {
	c.d.note("held")
	return 2, noon.Add(time.Hour)
}

type sessionsOf struct{ d *desk }

func (sessionsOf) Explain(context.Context, string) (*api.Decision, error) { return nil, nil }

func (s sessionsOf) Decisions(_ context.Context, f *api.DecisionFilter) ([]*api.Decision, []string) {
	return s.d.decided(f)
}
func (sessionsOf) Wait() <-chan struct{} { return nil }

type policiesOf struct{ d *desk }

func (p policiesOf) Renewed(context.Context) error {
	p.d.note("renewed")
	return p.d.renewed
}

func (p policiesOf) InForce() (newest, stamp string) {
	p.d.reaching.Lock()
	defer p.d.reaching.Unlock()
	return cmp.Or(p.d.newest, "p"), cmp.Or(p.d.stamp, "p")
}

func (policiesOf) Sync(_ context.Context, src repo.Source) (*api.PolicyStatus, error) {
	return &api.PolicyStatus{Source: src.Name}, nil
}
func (policiesOf) PackagesInForce() []policy.Package { return nil }

type routingOf struct{ d *desk }

// Mark is the moment 5.
func (r routingOf) Mark(context.Context) uint64 { return 5 }

// Reached is by what is said of agents; one is asked from the moment 5.
func (r routingOf) Reached(agent string, of proxy.Ref, since uint64) (bool, []*api.ResourceStatus) {
	r.d.reaching.Lock()
	defer r.d.reaching.Unlock()
	said := r.d.reached[agent]
	return since == 5 && said.has, said.rejected
}

func (r routingOf) Settled(proxy.Ref) bool { return !r.d.moving }

// reached is what an agent's proxies have.
type reached struct {
	has      bool
	rejected []*api.ResourceStatus
}

type proxiesOf struct{}

func (proxiesOf) Routes(of proxy.Ref, _ *api.RoutesRequest) (*api.RoutesResponse, error) {
	return &api.RoutesResponse{Route: of.String()}, nil
}

func (proxiesOf) Configs(*mesh.Graph, *api.ProxyConfigRequest) (*api.ProxyConfigResponse, error) {
	return nil, nil
}

// Effect has whom there is one for.
func (proxiesOf) Effect(all []effect.Effect, _ int) (*api.Effect, error) {
	out := &api.Effect{}
	for _, e := range all {
		out.Nodes = append(out.Nodes, &api.Effect_Node{Node: &api.VirtualNodeRef{Mesh: e.Of.Mesh, Name: e.Of.Name}, Authorization: e.Authorization})
	}
	return out, nil
}

type tokensOf struct{ d *desk }

func (k tokensOf) PutToken(_ context.Context, hash []byte, group string, expires time.Time) error {
	if len(hash) != 32 {
		return errors.New("no hash")
	}
	k.d.note("token of " + group + " until " + expires.Format(time.RFC3339))
	return nil
}
