package wayout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"signet.example/agent/resources"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/redirect"
	"signet.example/test/parts"
)

// oneProxy is the one of the host, as a test says.
type oneProxy struct {
	node  proxy.Ref // by its streams
	shape proxy.Shape
	ports []uint32
}

func (p *oneProxy) NodeOf(*attestation.Peer) proxy.Ref { return p.node }

func (p *oneProxy) ShapeOf(int, identity.Selectors, svids.Name) (proxy.Shape, error) {
	if p.shape == (proxy.Shape{}) {
		return p.shape, errors.New("no shape")
	}
	return p.shape, nil
}

func (p *oneProxy) PortsOf(proxy.Ref, proxy.Shape, svids.Name) ([]uint32, error) {
	if p.ports == nil {
		return nil, errors.New("no configuration")
	}
	return p.ports, nil
}

// asking is a server that this process asks, with a connection that it has.
type asking struct {
	*Server
	t     *testing.T
	proxy *oneProxy
	state *watched.Value[*resources.Snapshot]
	ctx   context.Context //nolint:containedctx // of the one who asks
	at    *authv3.AttributeContext
	log   bytes.Buffer
}

func newAsking(t *testing.T) *asking {
	t.Helper()
	a := &asking{t: t, proxy: &oneProxy{}, state: &watched.Value[*resources.Snapshot]{}}
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "peer")
	if err != nil {
		t.Fatal(err)
	}
	p, err := (&attestation.Attestor{}).Peer(ours)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(ours.Close(), theirs.Close(), p.Close(), c.Close(), l.Close()) }) // the test is over
	a.ctx = peer.NewContext(t.Context(), &peer.Peer{AuthInfo: attestation.PeerInfo{Peer: p}})
	a.at = &authv3.AttributeContext{Source: end(c.LocalAddr()), Destination: end(c.RemoteAddr())}
	a.Server = New(Config{
		State: a.state, Proxies: a.proxy, DataDir: t.TempDir(), Known: Known{}, Stay: func(*attestation.Peer) {}, Changed: func() {},
		Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(&a.log, nil)),
	})
	return a
}

func end(a net.Addr) *authv3.AttributeContext_Peer {
	at := a.(*net.TCPAddr) //nolint:forcetypeassert // as it was made
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: at.IP.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port)}, //nolint:gosec // a port
	}}}}
}

// bound sets the Bindings: each of this user, by node, with who may call out.
func (a *asking) bound(applications map[string][]string) {
	a.t.Helper()
	var entries []*api.Entry
	for node, named := range applications {
		entries = append(entries, &api.Entry{
			Name: node + "-proxy", SpiffeId: "spiffe://test.example/shop/" + node, Selectors: []string{userSelector(us())},
			VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: node}, Applications: named,
		})
	}
	s := resources.New(svidstest.Domain, resourcestest.Set(a.t, entries...), nil, nil, resources.OfProcesses)
	if len(s.Problems) > 0 {
		a.t.Fatal(s.Problems)
	}
	a.state.Set(s)
}

func userSelector(uid uint32) string { return fmt.Sprintf("unix:uid:%d", uid) }

// expect asks, and wants that reason, or to be let out where it is "".
func (a *asking) expect(what, reason string) {
	a.t.Helper()
	a.log.Reset()
	answer, err := a.Check(a.ctx, &authv3.CheckRequest{Attributes: a.at})
	if err != nil {
		a.t.Fatal(err)
	}
	want := codes.OK
	if reason != "" {
		want = codes.PermissionDenied
	}
	if got := codes.Code(answer.GetStatus().GetCode()); got != want || reason != "" && !strings.Contains(a.log.String(), " reason="+reason+" ") { //nolint:gosec // a status code
		a.t.Errorf("%s: %s, want reason %q: %s", what, got, reason, &a.log)
	}
}

// An Envoy that the agent did not start chooses by its node id among what it is bound
// to; a connection to its way out comes without one.
func TestAProcessThatIsTwoNodesCallsOutAsTheOneOfItsStream(t *testing.T) {
	a := newAsking(t)
	a.bound(map[string][]string{"web": {userSelector(us())}, "api": {userSelector(us() + 1)}})
	a.expect("which of both is not known", reasonProxy)
	a.proxy.node = proxy.Node("shop", "web")
	a.expect("the one whose application this is", "")
	a.proxy.node = proxy.Node("shop", "api")
	a.expect("the other", reasonNotTheirs)
	a.proxy.node = proxy.Node("shop", "stock")
	a.expect("one that it is not bound to", reasonProxy)
}

func TestWhatIsNotKnownLetsNobodyOut(t *testing.T) {
	a := newAsking(t)
	a.expect("nothing from the server", reasonNotReady)
	a.bound(map[string][]string{"web": nil})
	a.expect("a proxy without a stream", reasonNotReady)
	a.proxy.shape = proxy.Shape{App: "127.0.0.77"}
	a.expect("a proxy without a configuration", reasonNotReady)
	a.proxy.ports = []uint32{8080}
	a.expect("nobody listens", reasonNoOwner)
	a.owners.listeners = func(netip.AddrPort) ([]attestation.SocketOwner, error) { return user(us()), nil }
	clear(a.owners.recent)
	a.expect("the application", "")
	a.proxy.shape.App = "unix:" + filepath.Join(t.TempDir(), "none", "{port}.sock")
	a.expect("a folder that is not there", reasonSocket)
	a.proxy.shape.App = "127.0.0.77"

	at := a.at
	a.at = &authv3.AttributeContext{Source: at.GetSource()}
	a.expect("a connection with one end", reasonListenAddr)
	a.at = at
	a.bound(map[string][]string{"web": {userSelector(us() + 1)}})
	a.expect("another user is named", reasonNotTheirs)
	a.ctx = t.Context()
	a.expect("nobody was attested", reasonProxy)
}

// Envoy closes what it asks about when it gives up: that nobody holds it then says nothing of
// whoever held it before.
func TestAQuestionThatItsProxyGaveUpIsLateAndNotAboutNobody(t *testing.T) {
	a := newAsking(t)
	a.bound(map[string][]string{"web": nil})
	a.proxy.shape, a.proxy.ports = proxy.Shape{App: "127.0.0.77"}, []uint32{8080}
	asked := a.ctx
	var giveUp context.CancelFunc
	looked := 0
	a.owners.listeners = func(netip.AddrPort) ([]attestation.SocketOwner, error) {
		looked++
		giveUp()
		return nil, nil
	}
	a.ctx, giveUp = context.WithCancel(asked)
	a.expect("given up while it was looked for", reasonLate)
	giveUp()
	if a.expect("given up before it came to be asked", reasonLate); looked != 1 {
		t.Errorf("for a question that was given up, who listens was looked for (%d times in all)", looked)
	}
	a.ctx = asked
	a.at = &authv3.AttributeContext{Source: end(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}), Destination: a.at.GetDestination()}
	a.expect("nobody holds it", reasonGone)
}

// The kernel gives a redirected connection another source port where two have one.
func TestARedirectedConnectionIsItsCallersWhateverPortItHas(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	if out, err := exec.CommandContext(t.Context(), parts.Program(t, "ip"), "route", "add", "default", "via", parts.AnotherHost).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := redirect.Up(redirect.Rules{EgressPort: 15001, IgnoreUIDs: []uint32{1337}}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:15001")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	a := newAsking(t)
	a.bound(map[string][]string{"web": {userSelector(us())}})
	a.proxy.shape = proxy.Shape{App: "127.0.0.77", Capture: proxy.Capture{Egress: 15001}}
	call := func(port uint16, to string) {
		t.Helper()
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(parts.ThisHost), port)), Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
		}}
		c, err := d.DialContext(t.Context(), "tcp4", to)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = c.Close(), s.Close() })
		a.at = &authv3.AttributeContext{Source: end(s.RemoteAddr()), Destination: end(c.RemoteAddr())}
	}
	call(40000, "203.0.113.7:80")
	a.expect("with its own port", "")
	call(40000, "203.0.113.8:80")
	a.expect("with another", "")
	asked := a.at
	parts.AsUser(t, 1000, func() { call(40001, "203.0.113.8:80") })
	a.expect("another user's", reasonNotTheirs)
	a.at = asked
	a.expect("with another, where another user calls", reasonNotTheirs)
	if !strings.Contains(a.log.String(), "another source port") {
		t.Errorf("the log does not say why: %s", &a.log)
	}
}

// A service's own address is on loopback, where nothing is redirected.
func TestAConnectionToAServicesAddressIsItsCallersWhereOthersAreRedirected(t *testing.T) {
	a := newAsking(t)
	a.bound(map[string][]string{"web": {userSelector(us())}})
	for _, egress := range []uint16{0, 15001} {
		a.proxy.shape = proxy.Shape{App: "127.0.0.77", Capture: proxy.Capture{Egress: egress}, ServiceAddresses: true}
		a.expect(fmt.Sprintf("the application, with capture.egress %d", egress), "")
	}
	a.bound(map[string][]string{"web": {userSelector(us() + 1)}})
	a.expect("another user", reasonNotTheirs)
}

// Elsewhere the namespace that the agent is in is a whole host.
func TestTheNamespaceOfATaskCallsOutOnlyWhereItsBindingSaysSo(t *testing.T) {
	a := newAsking(t)
	a.proxy.shape = proxy.Shape{App: "127.0.0.77"}
	a.bound(map[string][]string{"web": {"namespace"}})
	a.expect("the agent's namespace on a host", reasonNotTheirs)
	a.config.Task = true
	a.expect("that of its task", "")
	if who := a.Speaker(a.proxy.shape, us(), svids.Name{Entry: "web-proxy"}); who.Who != "every process of the task" || who.Problem != "" {
		t.Errorf("a report says %+v", who)
	}
	a.bound(map[string][]string{"web": {userSelector(us() + 1)}})
	a.expect("another user is named", reasonNotTheirs)
}

func TestNobodyCallsOutThroughAGateway(t *testing.T) {
	a := newAsking(t)
	s := resources.New(svidstest.Domain, resourcestest.Set(t, &api.Entry{
		Name: "edge-proxy", SpiffeId: "spiffe://test.example/shop/edge", Selectors: []string{userSelector(us())},
		VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "edge", Gateway: true}, Applications: []string{"anyone"},
	}), nil, nil, resources.OfProcesses)
	a.state.Set(s)
	a.proxy.node = proxy.For("shop", "edge", true)
	if _, err := a.decide(a.ctx, a.at); err == nil || !strings.Contains(err.Error(), "nobody calls out through a gateway") {
		t.Errorf("it lets out: %v", err)
	}
	if who := a.Speaker(proxy.Shape{Alone: true}, us(), svids.Name{Entry: "edge-proxy"}); who.Who != "" || who.Problem != "" {
		t.Errorf("a report says %+v", who)
	}
}

func TestWhoMayCallOutIsSaidInAReport(t *testing.T) {
	a := newAsking(t)
	bound := svids.Name{Entry: "web-proxy"}
	expect := func(what string, uid uint32, want Speaker) {
		t.Helper()
		clear(a.owners.recent)
		got := a.Speaker(a.proxy.shape, uid, bound)
		said := func(got, want string) bool { return got == want || want != "" && strings.Contains(got, want) }
		if !said(got.Who, want.Who) || !said(got.Problem, want.Problem) || !slices.Equal(got.Applications, want.Applications) {
			t.Errorf("%s: %+v, want something of %+v", what, got, want)
		}
	}
	port := proxy.Shape{App: "127.0.0.77", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.77:15001")}}
	expect("nothing from the server", 0, Speaker{})
	a.proxy.shape = port
	a.bound(map[string][]string{"web": nil})
	expect("no configuration", 0, Speaker{})
	a.proxy.ports = []uint32{8080}
	a.owners.listeners = func(netip.AddrPort) ([]attestation.SocketOwner, error) { return nil, nil }
	expect("nobody listens", 0, Speaker{Problem: "nobody listens at 127.0.0.77, port 8080"})
	a.owners.listeners = func(netip.AddrPort) ([]attestation.SocketOwner, error) { return user(1000), nil }
	expect("its application", 0, Speaker{Who: "user 1000, who holds the application's listeners", Applications: []string{userSelector(1000)}})
	a.owners.listeners = func(netip.AddrPort) ([]attestation.SocketOwner, error) { return user(1001), nil }
	expect("somebody else", 0, Speaker{Problem: "its application was user 1000, and now user 1001 listens", Applications: []string{userSelector(1001)}})
	a.bound(map[string][]string{"web": {userSelector(0)}})
	expect("whom the Binding names", 0, Speaker{Who: "those whom Binding web-proxy names", Problem: "runs as user 0"})

	dir := ownFolder(t, 0o750)
	a.proxy.shape.Egress = proxy.Egress{Socket: filepath.Join(dir, "out.sock"), Mode: 0o600}
	expect("named at a socket", us(), Speaker{Problem: "at which nobody sees who calls"})
	a.bound(map[string][]string{"web": nil})
	expect("a socket that is not there", us(), Speaker{Problem: "egress: "})
	a.bound(map[string][]string{"web": {"anyone"}})
	expect("anyone", us(), Speaker{Who: "every process of the host", Problem: "lets anyone call out"})
}
