package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/policy/repo"
	"signet.example/proxy"
	"signet.example/server/conns"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
	"signet.example/server/views"
	"signet.example/store"
)

// ReadAddresses reads the file of a running server.
func ReadAddresses(dir string) (Addresses, error) {
	var a Addresses
	b, err := os.ReadFile(dataDir(dir).addresses())
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%s: %w", dataDir(dir).addresses(), err)
	}
	return a, nil
}

// Internals that are tested by themselves.
var (
	// MostOfOneAddress is how many connections of one address there are whose handshake is
	// not complete, and MostStrangersOfOneAddress how many that are nobody's after it.
	MostOfOneAddress          = conns.AgentsLimits().Source[conns.Shaking]
	MostStrangersOfOneAddress = conns.AgentsLimits().Source[conns.Stranger]
	// MostOfOneAgent is how many connections one agent has.
	MostOfOneAgent = conns.AgentsLimits().Agent
)

// What attestations are paid with.
const (
	StrangersPerSecond, StrangersBurst = strangersPerSecond, strangersBurst
	AttestPerSecond, AttestBurst       = attestPerSecond, attestBurst
)

// Touched lists the virtual nodes of a mesh that would be translated again if
// applied were applied to it and removed deleted, and those of which the translation then differs.
func Touched(td spiffeid.TrustDomain, stored, applied string, removed ...kinds.Key) (touched, differ []string, err error) {
	empty, err := model.Load(td, nil, 0)
	if err != nil {
		return nil, nil, err
	}
	before, err := modeltest.Read(td, empty, stored)
	if err != nil {
		return nil, nil, err
	}
	now, err := empty.With(before)
	if err != nil {
		return nil, nil, err
	}
	after, err := modeltest.Read(td, now, applied)
	if err != nil {
		return nil, nil, err
	}
	next, err := now.With(after, removed...)
	if err != nil {
		return nil, nil, err
	}
	look := func(m *model.Model) views.Look {
		return views.Look{Model: viewed{m}, Endpoints: &fleet.Registered{}, Policy: views.Policy{Current: &api.PolicyRevision{}}}
	}
	for _, at := range views.Affected(look(now), look(next)) {
		touched = append(touched, at.Name)
	}
	cfg := views.Config{TrustDomain: td, Log: slog.New(slog.DiscardHandler)}
	was, is := views.New(cfg, fixed{look(now)}, anyone{}, watched.NewSignal()), views.New(cfg, fixed{look(next)}, anyone{}, watched.NewSignal())
	for k := range next.Objects().All() {
		at, ok := mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name).Proxied()
		if !ok {
			continue
		}
		node := anyProxy(at)
		set, err := is.View(context.Background(), node)
		if err != nil {
			return nil, nil, err
		}
		old, err := was.View(context.Background(), node) // there may have been none
		if err != nil || old.Set().Version() != set.Set().Version() {
			differ = append(differ, k.Name)
		}
	}
	return touched, differ, nil
}

// fixed is what views are made of that do not change.
type fixed struct{ look views.Look }

func (f fixed) Look() views.Look           { return f.look }
func (fixed) Group(string) (string, error) { return "g", nil }

// anyone may follow everything; it is the agent that the context names, or x.
type anyone struct{ agent string }

type asAgent struct{}

func (anyone) Follower(ctx context.Context) (views.Follower, error) {
	if agent, ok := ctx.Value(asAgent{}).(string); ok {
		return anyone{agent}, nil
	}
	return anyone{"x"}, nil
}

func (anyone) Review()                {}
func (a anyone) Agent() string        { return a.agent }
func (anyone) ID() spiffeid.ID        { return agentX.ID }
func (anyone) Follow(proxy.Ref) error { return nil }
func (anyone) LogsTo(string)          {}

// anyNode is a proxy of a virtual node.
func anyNode(mesh, name string) *corev3.Node { return anyProxy(proxy.Node(mesh, name)) }

func anyProxy(of proxy.Ref) *corev3.Node {
	shape := proxy.Shape{
		Bind: "127.0.0.2", App: "127.0.0.1", Egress: proxy.EgressPort("127.0.0.2", proxy.DefaultEgressPort),
		AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock",
	}
	return &corev3.Node{Id: of.String(), Metadata: shape.Metadata()}
}

// ServeStopped serves a face that was stopped before.
func ServeStopped(l net.Listener) error {
	f := face{grpc.NewServer(), l}
	f.server.Stop()
	return f.serve()
}

// lastRun is the server that RunInProcess started last.
var lastRun atomic.Pointer[server]

// AuditTrail is that of the server that was started last.
func AuditTrail(ctx context.Context) ([]store.AuditRow, error) {
	return lastRun.Load().store.AuditTrail(ctx, 0, 1000)
}

// TellRefusals writes the numbers that are owed, as each minute does.
func TellRefusals(ctx context.Context) { lastRun.Load().refusals.Tell(ctx) }

// Stale lists the views of the server that was started last whose set is not
// what would be built from nothing now.
func Stale() ([]string, error) { return lastRun.Load().views.Stale() }

// ApplyAfter applies to the server that was started last; between runs when all is
// checked and translated and nothing is stored.
func ApplyAfter(ctx context.Context, manifests string, between func()) error {
	c, end, err := stored{lastRun.Load()}.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	now := lastRun.Load().model()
	objects, err := modeltest.Read(lastRun.Load().td, now, manifests)
	if err != nil {
		return err
	}
	d, err := c.With(objects)
	if err != nil {
		return err
	}
	var errs []error
	r, err := d.Try(modeltest.Writes(now, objects), func(_ proxy.Ref, err error) { errs = append(errs, err) })
	if err = errors.Join(append(errs, err)...); err != nil {
		return err
	}
	between()
	_, err = r.Write(ctx, "test", "a test")
	return err
}

// Endpoints is how many the server that was started last has registered.
func Endpoints() int { return lastRun.Load().endpoints.Count() }

// Refused is how many endpoints are reported to it and not served.
func Refused() int { return len(lastRun.Load().endpoints.Refused()) }

// ServeSession serves the server that was started last a session of an agent that ends at once.
func ServeSession(ctx context.Context, agent string) error {
	return lastRun.Load().sessions.Serve(fleet.Peer{Agent: store.Agent{ID: agent}}, endedSession{ctx: ctx})
}

type endedSession struct {
	grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]

	ctx context.Context //nolint:containedctx // grpc.ServerStream's own contract
}

func (s endedSession) Context() context.Context    { return s.ctx }
func (endedSession) Recv() (*api.SessionUp, error) { return nil, io.EOF }

// Instances is how many agents the server that was started last holds as served.
func Instances() int {
	known, _ := lastRun.Load().common.fleet.Get()
	var count func(node reflect.Value) int
	count = func(node reflect.Value) int {
		if node.IsNil() {
			return 0
		}
		return 1 + count(node.Elem().FieldByName("low")) + count(node.Elem().FieldByName("high"))
	}
	return count(reflect.ValueOf(known).Elem().FieldByName("runs").FieldByName("root"))
}

// BanInStore bans, again and again if asked, behind the back of the server that
// was started last.
func BanInStore(ctx context.Context, id string) error {
	return lastRun.Load().store.BanAgent(ctx, "test", id, "")
}

// Write stores an object behind the back of the server that was started last.
func Write(ctx context.Context, kind, name string, manifest []byte) error {
	st := lastRun.Load().store
	_, err := st.Apply(ctx, "test", "a test", st.Revision(), []store.Write{{Object: store.Object{Kind: kind, Name: name, Manifest: manifest}}})
	return err
}

// PolicyLogin is the login that a source's URL has.
func (c Config) PolicyLogin(url string) (repo.Login, error) { return c.policyLogin(url) }

// PrivateServer reports what is wrong with a server's files.
func PrivateServer(cfg Config, own uint32) error { return cfg.Complete().guarded(own) }
