package relay

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// decided is who decides, as a test has it: by the revisions that it sets.
type decided struct {
	loaded watched.Value[[]string]
	stamps watched.Value[map[any][]string]
}

func (d *decided) Loaded() ([]string, <-chan struct{}) { return d.loaded.Get() }

func (d *decided) Stamp(by any, revisions []string) {
	d.stamps.Update(func(old map[any][]string) map[any][]string {
		next := maps.Clone(old)
		if next == nil {
			next = map[any][]string{}
		}
		if next[by] = revisions; len(revisions) == 0 {
			delete(next, by)
		}
		return next
	})
}

// ARelay is one without a server. Nobody runs it.
func aRelay(conn grpc.ClientConnInterface, p Policies) *Relay {
	log := slog.New(slog.DiscardHandler)
	return New(Config{
		Conn: conn, Connected: &watched.Value[bool]{}, State: &watched.Value[*resources.Snapshot]{}, Trust: &watched.Value[*svids.Trust]{},
		SVIDs: svids.NewKeeper(nil, svids.NewMetrics(prometheus.NewRegistry()), log), Policies: p, Drain: time.Second,
		CheckApp: func(proxy.Shape) error { return nil }, Stay: func(*attestation.Peer) {},
		Refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}), Log: log,
	})
}

func TestAProxyThatClaimsManyShapesLeavesRoomForOtherNodes(t *testing.T) {
	r := aRelay(nil, &decided{})
	for n := range maxShapes {
		r.subs[subscriptionKey{proxy.Node("shop", "web"), proxy.Shape{Egress: proxy.Egress{AddrPort: netip.AddrPortFrom(netip.Addr{}, uint16(n))}}}] = &subscription{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody runs what is begun
	if _, err := r.view(ctx, viewKey{sub: subscriptionKey{proxy.Node("shop", "orders"), proxy.Shape{}}}); status.Code(err) != codes.Canceled {
		t.Errorf("another node: %v", err)
	}
	if _, err := r.view(ctx, viewKey{sub: subscriptionKey{proxy.Node("shop", "web"), proxy.Shape{App: "another"}}}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one shape more: %v", err)
	}
	own := subscriptionKey{proxy.Node("shop", "web"), proxy.Shape{Bind: "127.0.0.2", App: "127.0.0.1"}}
	r.Configure("web", own.ref, own.shape)
	if _, err := r.view(ctx, viewKey{sub: own}); status.Code(err) != codes.Canceled {
		t.Errorf("the agent's own proxy of that node: %v", err)
	}
}

func TestASupervisedProxyIsNoOtherNodeThanItIsConfiguredFor(t *testing.T) {
	r := aRelay(nil, &decided{})
	r.Configure("web-1", proxy.Node("shop", "web"), proxy.Shape{Bind: "127.0.0.2", App: "127.0.0.1"})
	has := identity.Selectors{{Type: "signet", Value: "proxy:web-1"}}
	for node, want := range map[string]bool{"web": true, "api": false} {
		if sh, err := r.shapeFor(&corev3.Node{}, has, proxy.Node("shop", node)); (err == nil) != want {
			t.Errorf("%s: %+v, %v", node, sh, err)
		}
	}
}

func TestWhatAProxyHasOnlyOnceItRunsIsNotWaitedFor(t *testing.T) {
	for text, want := range map[string]bool{
		"unix:uid:1000": true, "unix:gid:1000": true, "signet:proxy:web": true,
		"unix:path:/usr/bin/envoy": false, "unix:sha256:" + strings.Repeat("a", 64): false, "systemd:unit:agent.service": false, "systemd:slice:system.slice": false,
	} {
		sel, err := identity.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		if given(sel) != want {
			t.Errorf("%s: %v, want %v", text, !want, want)
		}
	}
}

func TestTheShapeOfAForeignProxyKeepsOurSocket(t *testing.T) {
	meta, err := structpb.NewStruct(map[string]any{proxy.ShapeKey: map[string]any{
		"bind": "10.0.0.1", "app": "127.0.0.1", "authz_socket": "/tmp/mine.sock",
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := foreignShape(&corev3.Node{Metadata: meta}, proxy.Node("shop", "web"), proxy.Shape{AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock"}, proxy.Where{})
	if err != nil || s.AuthzSocket != "/run/signet/authz.sock" || s.Egress.String() != "127.0.0.1:15001" {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := foreignShape(&corev3.Node{}, proxy.Node("shop", "web"), proxy.Shape{AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock"}, proxy.Where{}); err == nil {
		t.Error("a node without a shape was accepted")
	}
}

func TestAShapeOnSocketsTravelsToTheServerAsItIs(t *testing.T) {
	ours := proxy.Shape{Bind: "10.0.0.1", App: "unix:/run/web/{port}.sock", Egress: proxy.Egress{Socket: "/run/out/web.sock", Mode: 0o600}, AuthzSocket: "/a", WayoutSocket: "/w"}
	got, err := foreignShape(&corev3.Node{Metadata: ours.Metadata()}, proxy.Node("shop", "web"), proxy.Shape{AuthzSocket: "/a", WayoutSocket: "/w"}, proxy.Where{})
	if err != nil || got != ours {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAShapeThatTheServerWouldRefuseIsRefusedToTheProxy(t *testing.T) {
	for name, fields := range map[string]map[string]any{
		"a host name":              {"bind": "localhost", "app": "127.0.0.1"},
		"no application":           {"bind": "10.0.0.1"},
		"one address for both":     {"bind": "10.0.0.1", "app": "10.0.0.1"},
		"a port that is a text":    {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": "15001"},
		"a port that is too large": {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": 1e300},
		"open to other hosts":      {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": "10.0.0.1:15001"},
		"open, as a text":          {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": "10.0.0.1:15001", "egress_open": "true"},
		"one socket for all ports": {"bind": "10.0.0.1", "app": "unix:/run/web/app.sock"},
		"a socket for everybody":   {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": "unix:/run/out.sock", "egress_mode": "0666"},
		"a mode of a port":         {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": 15001.0, "egress_mode": "0660"},
		"half a port":              {"bind": "10.0.0.1", "app": "127.0.0.1", "egress": 80.5},
		"a key with a mistake":     {"bind": "10.0.0.1", "app": "127.0.0.1", "egres": 15002.0},
	} {
		meta, err := structpb.NewStruct(map[string]any{proxy.ShapeKey: fields})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := foreignShape(&corev3.Node{Metadata: meta}, proxy.Node("shop", "web"), proxy.Shape{AuthzSocket: "/a", WayoutSocket: "/w"}, proxy.Where{}); err == nil || !strings.Contains(err.Error(), proxy.ShapeKey) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
}

func TestTheServersSecretsReachNoProxy(t *testing.T) {
	root := svidstest.NewRoot(t)
	secret, err := ads.NewResource(ads.SecretType, "spiffe://other.example", &api.Ban{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := ads.NewSet(secret)
	if err != nil {
		t.Fatal(err)
	}
	s := root.SVID("web", "/shop/web")
	v := newView(&subscription{}, svids.Name{Entry: "web", ID: s.ID}, nil, nil)
	if err := v.publish(&routing{set: set}, s, root.Trust(1), nil); err != nil {
		t.Fatal(err)
	}
	secrets := v.published.Load().Type(ads.SecretType)
	if len(secrets) != 2 || secrets[0].Name != "spiffe://test.example" || secrets[1].Name != s.ID.String() {
		t.Errorf("%d secrets", len(secrets))
	}
}

func TestAProxysOwnWordOpensNoWayOutInSilence(t *testing.T) {
	shape := func(fields map[string]any) (proxy.Shape, error) {
		s, err := structpb.NewStruct(map[string]any{proxy.ShapeKey: fields})
		if err != nil {
			t.Fatal(err)
		}
		return foreignShape(&corev3.Node{Metadata: s}, proxy.Node("shop", "web"), proxy.Shape{AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock"}, proxy.Where{})
	}
	s, err := shape(map[string]any{"bind": "192.0.2.7", "app": "127.0.0.1", "egress": 15002.0})
	if err != nil || s.Egress.String() != "127.0.0.1:15002" {
		t.Errorf("a port alone: %s, %v", s.Egress, err)
	}
	s, err = shape(map[string]any{"bind": "192.0.2.7", "app": "127.0.0.1", "egress": "192.0.2.7:15001", "egress_open": true})
	if err != nil || !s.EgressOpen || !s.Metadata().GetFields()[proxy.ShapeKey].GetStructValue().GetFields()["egress_open"].GetBoolValue() {
		t.Errorf("by name: %+v, %v", s, err)
	}
}

// An Envoy of somebody's own cannot widen what the operator gave.
func TestAForeignProxyNamesNoFolderForItsAccessLogs(t *testing.T) {
	own := proxy.Shape{Bind: "127.0.0.7", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.7:15001")}, AccessLogDir: "/etc"}
	s, err := foreignShape(&corev3.Node{Metadata: own.Metadata()}, proxy.Node("shop", "web"), proxy.Shape{AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock", AccessLogDir: "/var/log/mesh"}, proxy.Where{})
	if err != nil || s.AccessLogDir != "/var/log/mesh" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestAnAppMeshEnvoyIsWhereTheOperatorOfItsHostSaysAndNoOlderThanOthers(t *testing.T) {
	metadata, err := structpb.NewStruct(map[string]any{"aws.appmesh.platformInfo": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	node := func(minor uint32) *corev3.Node {
		return &corev3.Node{Metadata: metadata, UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
			UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: minor}},
		}}
	}
	ours, at := proxy.Shape{AuthzSocket: "/a", WayoutSocket: "/w"}, proxy.Where{Bind: "192.0.2.7"}
	s, err := foreignShape(node(40), proxy.Node("shop", "web"), ours, at)
	if err != nil || s.Bind != "192.0.2.7" || s.App != "127.0.0.1" || s.EnvoyVersion != "1.40.0" || s.AuthzSocket != "/a" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := foreignShape(node(40), proxy.For("shop", "edge", true), ours, at); err != nil || !s.Alone || s.App != "" {
		t.Errorf("a gateway: %+v, %v", s, err)
	}
	if _, err := foreignShape(node(34), proxy.Node("shop", "web"), ours, at); !errors.Is(err, proxy.ErrOldEnvoy) {
		t.Errorf("an old one: %v", err)
	}
	if _, err := foreignShape(node(40), proxy.Node("shop", "web"), ours, proxy.Where{}); err == nil || !strings.Contains(err.Error(), "app_mesh.bind") {
		t.Errorf("without an address: %v", err)
	}
	if _, err := foreignShape(node(40), proxy.Node("shop", "web"), ours, proxy.Where{Bind: "192.0.2.7", App: "192.0.2.7"}); !errors.Is(err, proxy.ErrShape) {
		t.Errorf("its own client: %v", err)
	}
}

// What comes in is registered where a foreign proxy is seen to listen, which is not where it is called then.
func TestAForeignProxyTakesWhatIsRedirectedOutAndNothingThatIsRedirectedIn(t *testing.T) {
	ours := proxy.Shape{AuthzSocket: "/a", WayoutSocket: "/w"}
	of := func(c proxy.Capture) proxy.Shape {
		return proxy.Shape{Bind: "192.0.2.7", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.1:15001")}, AuthzSocket: "/a", WayoutSocket: "/w", Capture: c}
	}
	for name, c := range map[string]proxy.Capture{"in": {Ingress: 15000}, "both": {Egress: 15001, Ingress: 15000}} {
		_, err := foreignShape(&corev3.Node{Metadata: of(c).Metadata()}, proxy.Node("shop", "web"), ours, proxy.Where{})
		if !errors.Is(err, proxy.ErrShape) || !strings.Contains(err.Error(), "capture.ingress is for a proxy that the agent starts") {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := of(proxy.Capture{Egress: 15001, IPv6: true})
	if s, err := foreignShape(&corev3.Node{Metadata: want.Metadata()}, proxy.Node("shop", "web"), ours, proxy.Where{}); err != nil || s != want {
		t.Errorf("out: %+v, %v", s, err)
	}
	if _, err := foreignShape(&corev3.Node{Metadata: of(proxy.Capture{Egress: 15002}).Metadata()}, proxy.Node("shop", "web"), ours, proxy.Where{}); !errors.Is(err, proxy.ErrShape) {
		t.Errorf("out at another port than its way out: %v", err)
	}
}

func TestTheApplicationOfAForeignProxyFindsServicesAtTheirAddressesWhereItSaysSo(t *testing.T) {
	ours := proxy.Shape{AuthzSocket: "/a", WayoutSocket: "/w"}
	want := proxy.Shape{Bind: "192.0.2.7", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.1:15001")}, AuthzSocket: "/a", WayoutSocket: "/w", ServiceAddresses: true}
	if s, err := foreignShape(&corev3.Node{Metadata: want.Metadata()}, proxy.Node("shop", "web"), ours, proxy.Where{}); err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	onSocket := want
	onSocket.Egress = proxy.Egress{Socket: "/run/out/web.sock", Mode: 0o600}
	if _, err := foreignShape(&corev3.Node{Metadata: onSocket.Metadata()}, proxy.Node("shop", "web"), ours, proxy.Where{}); !errors.Is(err, proxy.ErrShape) || !strings.Contains(err.Error(), "service_addresses") {
		t.Errorf("a way out that is a socket: %v", err)
	}
	edge, err := foreignShape(&corev3.Node{Metadata: want.Metadata()}, proxy.For("shop", "edge", true), ours, proxy.Where{})
	if err != nil || edge.ServiceAddresses {
		t.Errorf("a gateway, which has no application: %+v, %v", edge, err)
	}
}
