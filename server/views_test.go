package server_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server"
)

var (
	ownTypes   = []string{ads.EntryType, ads.BundleType, ads.PolicyType, ads.JWTIssuerType, ads.BanType}
	envoyTypes = []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType}
)

// follower keeps the last complete set of one view, as an agent does.
type follower struct {
	t    *testing.T
	err  chan error
	mu   sync.Mutex
	set  *ads.Set
	view *api.View
	last string // version of the resource that closes the view
}

func (h *host) follow(node *corev3.Node, types []string) *follower {
	h.t.Helper()
	f := &follower{t: h.t, err: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	c := &ads.Client{Conn: h.conn, Node: node, Types: types, Complete: func(r *ads.Resource, got *ads.Set) bool {
		v := &api.View{}
		if err := proto.Unmarshal(r.Body, v); err != nil {
			return false
		}
		for typeURL, version := range v.GetSetVersions() {
			if got.TypeVersion(typeURL) != version {
				return false
			}
		}
		return true
	}, OnSet: func(s *ads.Set, r *ads.Resource) {
		v := &api.View{}
		_ = proto.Unmarshal(r.Body, v) // Complete has seen it
		f.mu.Lock()
		defer f.mu.Unlock()
		f.set, f.view, f.last = s, v, r.Version
	}}
	done := make(chan struct{})
	go func() { f.err <- c.Run(ctx); close(done) }()
	h.t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *follower) now() (*ads.Set, *api.View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set, f.view
}

func (f *follower) await(what string, ok func(*ads.Set, *api.View) bool) {
	f.t.Helper()
	eventually(f.t, what, func() bool {
		select {
		case err := <-f.err:
			f.t.Fatalf("stream ended: %v", err)
		default:
		}
		s, v := f.now()
		return s != nil && ok(s, v)
	})
}

func (h *host) followOwn() *follower {
	return h.follow(&corev3.Node{Id: h.spiffeID()}, ownTypes)
}

func nodeOf(mesh, node, bind string) *corev3.Node {
	shape := proxy.Shape{Bind: bind, App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 15001)}, AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock", EnvoyVersion: "1.40.0"}
	return &corev3.Node{Id: proxy.Node(mesh, node).String(), Metadata: shape.Metadata()}
}

func namesOf(s *ads.Set, typeURL string) []string {
	var list []string
	for _, r := range s.Type(typeURL) {
		list = append(list, r.Name)
	}
	return list
}

func TestAnAgentIsToldWhatItsGroupMayBeAndNothingElse(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	front, back := r.join("front").followOwn(), r.join("back").followOwn()
	front.await("its entries", func(s *ads.Set, v *api.View) bool {
		return slices.Equal(namesOf(s, ads.EntryType), []string{"binding/web", "job"}) && v.GetPolicyRevision() != ""
	})
	back.await("its entries", func(s *ads.Set, _ *api.View) bool {
		return slices.Equal(namesOf(s, ads.EntryType), []string{"binding/orders", "secret"})
	})
	s, _ := front.now()
	if len(s.Type(ads.BundleType)) != 1 || len(s.Type(ads.PolicyType)) != 1 {
		t.Errorf("%d bundles, %d policy revisions", len(s.Type(ads.BundleType)), len(s.Type(ads.PolicyType)))
	}
	r.apply("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: new}\nspec: {group: front, spiffeID: \"spiffe://test.example/new\", selectors: [\"unix:uid:7\"]}\n")
	front.await("a new entry", func(s *ads.Set, _ *api.View) bool { return s.Get(ads.EntryType, "new") != nil })
	if s, _ := back.now(); s.Get(ads.EntryType, "new") != nil {
		t.Error("the other group sees the entry")
	}
}

func TestAVirtualNodesViewIsForAgentsThatABindingNames(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	f := h.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	f.await("a complete view", func(s *ads.Set, v *api.View) bool {
		return len(s.Type(ads.ListenerType)) > 0 && len(s.Type(ads.ClusterType)) > 0 && v.GetPolicyRevision() != "" && v.GetName() == "mesh/shop/virtualNode/web"
	})
	for _, id := range []string{"mesh/shop/virtualNode/orders", "mesh/shop/virtualNode/none", "mesh/none/virtualNode/web", "spiffe://test.example/signet/agent/other", "../web", ""} {
		node := nodeOf("shop", "web", "127.0.0.9")
		node.Id = id
		g := h.follow(node, envoyTypes)
		wantCode(t, <-g.err, codes.PermissionDenied, "not known to this agent")
		g.err <- nil
	}
	bad := nodeOf("shop", "web", "0.0.0.0")
	g := h.follow(bad, envoyTypes)
	wantCode(t, <-g.err, codes.InvalidArgument, "bind")
}

func TestAStreamEndsWhenItsBindingIsDeleted(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	f := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	f.await("a view", func(*ads.Set, *api.View) bool { return true })
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "binding", Name: "web"}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-f.err, codes.PermissionDenied)
}

// session opens the agent's session and hands back how to report.
func (h *host) session() (func(*api.Report), api.AgentAPI_SessionClient) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := h.api().Session(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(cancel)
	return func(r *api.Report) {
		h.t.Helper()
		if err := s.Send(&api.SessionUp{Message: &api.SessionUp_Report{Report: r}}); err != nil {
			h.t.Fatal(err)
		}
	}, s
}

func proxyReport(name, mesh, node, address string, port uint32) *api.Report {
	return &api.Report{PeerMode: api.Report_PIDFD.Enum(), Proxies: []*api.ProxyStatus{{
		Name: name, VirtualNode: &api.VirtualNodeRef{Mesh: mesh, Name: node}, Address: address, Ports: []uint32{port}, Healthy: true, State: api.ProxyStatus_READY.Enum(),
	}}}
}

// addresses of the endpoints that callers of orders are sent to.
func addresses(s *ads.Set) []string {
	found := map[string]bool{}
	for _, r := range s.Type(ads.EndpointType) {
		cla := &endpointv3.ClusterLoadAssignment{}
		if proto.Unmarshal(r.Body, cla) != nil || !strings.Contains(r.Name, "orders") {
			continue
		}
		for _, l := range cla.GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				a := e.GetEndpoint().GetAddress().GetSocketAddress()
				found[fmt.Sprintf("%s:%d", a.GetAddress(), a.GetPortValue())] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func TestWhatAnAgentReportsBecomesAnEndpointOfItsCallers(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	f := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	f.await("a view", func(*ads.Set, *api.View) bool { return true })
	back := r.join("back")
	report, _ := back.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	f.await("the endpoint", func(s *ads.Set, _ *api.View) bool { return slices.Equal(addresses(s), []string{"127.0.0.10:8080"}) })

	t.Run("but not for a node that is not its own", func(t *testing.T) {
		report(proxyReport("web", "shop", "web", "127.0.0.11", 8080))
		awaitFinding(t, r, "SIG008", "not bound to group")
	})
	t.Run("nor at an address that is not its own", func(t *testing.T) {
		report(proxyReport("orders", "shop", "orders", "10.1.2.3", 8080))
		awaitFinding(t, r, "SIG008", "not the agent's own")
	})
	f.await("no endpoint", func(s *ads.Set, _ *api.View) bool { return len(addresses(s)) == 0 })
}

// Each fix mends its cause: none leads to the other.
func TestAProxyToWhichNoCallerIsSentIsNotReadyAndEverybodyIsToldWhy(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	back := r.join("back")
	report, session := back.session()
	seen := func() *api.ProxyStatus {
		resp, err := r.admin.Agents(t.Context(), &api.AgentsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetAgents()[0].GetReport().GetProxies()[0]
	}
	recv := func() (*api.SessionDown, error) { // except what is said of proxies that drain: none does
		for {
			if m, err := session.Recv(); m.GetWithdrawn() == nil {
				return m, err
			}
		}
	}
	two := proxyReport("orders", "shop", "orders", "127.0.0.10", 8080)
	two.Proxies = append(proxyReport("first", "shop", "orders", "127.0.0.10", 8080).GetProxies(), two.GetProxies()...)
	for _, c := range []struct {
		report             *api.Report
		proxy, reason, fix string
	}{
		{proxyReport("web", "shop", "web", "127.0.0.11", 8080), "web", "not bound to group", "Binding of group back, mesh shop and virtualNode web"},
		{proxyReport("orders", "shop", "orders", "10.1.2.3", 8080), "orders", "not the agent's own", "set bind of this proxy to 127.0.0.1 "},
		{two, "orders", "taken by proxy first", "another bind"},
	} {
		report(c.report)
		f := awaitFinding(t, r, "SIG008", c.reason)
		if !strings.Contains(f.GetFix(), c.fix) {
			t.Errorf("%s: the fix is %q", c.reason, f.GetFix())
		}
		if len(c.report.GetProxies()) == 1 {
			if p := seen(); p.GetState() != api.ProxyStatus_UNSERVED || !strings.Contains(p.GetReason(), c.reason) {
				t.Errorf("%s: %v", c.reason, p)
			}
		}
		m, err := recv()
		if err != nil || !strings.Contains(m.GetUnserved().GetReasons()[c.proxy], c.reason) {
			t.Errorf("%s: the agent was told %v, %v", c.reason, m, err)
		}
	}
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	if m, err := recv(); err != nil || m.GetUnserved() == nil || len(m.GetUnserved().GetReasons()) > 0 {
		t.Errorf("mended: the agent was told %v, %v", m, err)
	}
	if p := seen(); p.GetState() != api.ProxyStatus_READY {
		t.Errorf("mended: %v", p)
	}
}

func TestTwoAgentsDoNotShareAnAddressUnlessForOneVirtualNode(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	first, second := r.join("back"), r.join("front")
	report, _ := first.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	web := second.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	web.await("the endpoint", func(s *ads.Set, _ *api.View) bool { return len(addresses(s)) == 1 })
	rival, _ := second.session()
	rival(proxyReport("web", "shop", "web", "127.0.0.10", 8080))
	awaitFinding(t, r, "SIG008", "is taken by proxy orders for shop/orders")
	if s, _ := web.now(); !slices.Equal(addresses(s), []string{"127.0.0.10:8080"}) {
		t.Errorf("the one who was there first is served at %v", addresses(s))
	}
}

func TestTheEndpointsOfAnAgentThatLeftAreServedForTheGracePeriod(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.halt()
	r.cfg.EndpointGrace = 2 * time.Second
	r.start()
	r.apply(registry + shop)
	f := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	back := r.join("back")
	report, _ := back.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	f.await("the endpoint", func(s *ads.Set, _ *api.View) bool { return len(addresses(s)) == 1 })
	_ = back.conn.Close()
	awaitFinding(t, r, "SIG021", "none of whose endpoints is healthy and connected")
	if s, _ := f.now(); len(addresses(s)) != 1 {
		t.Error("withdrawn at once")
	}
	f.await("no endpoint", func(s *ads.Set, _ *api.View) bool { return len(addresses(s)) == 0 })
}

func awaitFinding(t *testing.T, r *rig, id, cause string) *api.Finding {
	t.Helper()
	var found *api.Finding
	var last *api.CheckResponse
	eventually(t, id+" "+cause, func() bool {
		resp, err := r.admin.Check(t.Context(), &api.CheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		last = resp
		for _, f := range resp.GetFindings() {
			if f.GetId() == id && strings.Contains(f.GetCause(), cause) {
				found = f
				return true
			}
		}
		return false
	})
	_ = last
	if found.GetFix() == "" || found.GetSubject() == "" {
		t.Errorf("finding without subject or fix: %v", found)
	}
	return found
}

func differences(a, b *ads.Set) (list []string) {
	for _, typeURL := range a.Types() {
		for _, r := range a.Type(typeURL) {
			if other := b.Get(typeURL, r.Name); other == nil || other.Version != r.Version {
				list = append(list, typeURL+" "+r.Name)
			}
		}
	}
	return list
}

func TestARestartKeepsEverything(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	front, back := r.join("front"), r.join("back")
	report, _ := back.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	f := front.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	f.await("the endpoint", func(s *ads.Set, _ *api.View) bool { return len(addresses(s)) == 1 })
	own := front.followOwn()
	own.await("its view", func(*ads.Set, *api.View) bool { return true })
	before, _ := f.now()
	ownBefore, _ := own.now()
	objects, err := r.admin.Get(t.Context(), &api.GetRequest{})
	if err != nil {
		t.Fatal(err)
	}

	r.halt()
	r.start()

	again, err := r.admin.Get(t.Context(), &api.GetRequest{})
	if err != nil || !proto.Equal(objects, again) {
		t.Errorf("objects differ after the restart: %v", err)
	}
	if err := front.attest(""); err != nil {
		t.Fatalf("re-attest: %v", err)
	}
	f = front.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	f.await("the first view", func(s *ads.Set, _ *api.View) bool {
		// The agent that has the endpoint is not back yet.
		if s.Version() != before.Version() || len(addresses(s)) != 1 {
			t.Errorf("the first view after the restart differs in %v, endpoints %v", differences(before, s), addresses(s))
		}
		return true
	})
	own = front.followOwn()
	own.await("its view", func(s *ads.Set, _ *api.View) bool { return s.Version() == ownBefore.Version() })
}

func TestABannedAgentIsCutOffAndStaysOut(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h, other := r.join("front"), r.join("front")
	f := h.followOwn()
	f.await("its view", func(*ads.Set, *api.View) bool { return true })
	witness := other.followOwn()
	if resp := r.ban(h.id); !resp.GetChanged() || resp.GetCertificates() != 1 || resp.GetNotAfter().AsTime().Before(time.Now()) {
		t.Errorf("%v; it has its own certificate", resp)
	}
	// At once: no watch of the store is waited for.
	_, err := h.issue("job")
	wantCode(t, err, codes.PermissionDenied, "banned", "new token")
	wantCode(t, <-f.err, codes.PermissionDenied, "banned")
	wantCode(t, h.attest(""), codes.PermissionDenied, "banned")
	wantCode(t, h.attest(r.token("front")), codes.InvalidArgument, "host key")
	witness.await("the ban", func(s *ads.Set, _ *api.View) bool { return s.Get(ads.BanType, h.spiffeID()) != nil })
}

func TestABanStandsWhereTheSignerDoesNotAnswerAndSaysWhatIsUnknown(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	end := server.Silence()
	defer end()
	if resp := r.ban(h.id); !resp.GetChanged() || !strings.Contains(resp.GetUnread(), "issuance log") {
		t.Errorf("%v; nobody could tell what it holds", resp)
	}
	_, err := h.issue("job")
	wantCode(t, err, codes.PermissionDenied, "banned")
	end()
	if resp := r.ban(h.id); resp.GetChanged() || resp.GetUnread() != "" || resp.GetCertificates() != 1 {
		t.Errorf("%v; it has its own certificate, and no other", resp)
	}
}

func TestOnlyAnAgentThatIsGoneIsForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.halt()
	r.cfg.Lifetimes.Agent = 5 * time.Second
	r.start()
	r.apply(registry)
	out, gone := r.join("front"), r.join("front")
	r.ban(out.id)
	remove := func(id string) error {
		_, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "agent", Name: id})
		return err
	}
	wantCode(t, remove(gone.id), codes.FailedPrecondition, "its certificate is good until", "signet ban "+gone.id)
	wantCode(t, remove(out.id), codes.FailedPrecondition, "its host key stays out")
	wantCode(t, remove("nobody"), codes.NotFound, "signet get agents")
	if f := awaitFinding(t, r, "SIG001", "ended at"); !strings.HasPrefix(f.GetFix(), "signet delete agent "+gone.id) {
		t.Errorf("%v", f)
	}
	if err := remove(gone.id); err != nil {
		t.Fatal(err)
	}
	resp, err := r.admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil || len(resp.GetAgents()) != 1 || resp.GetAgents()[0].GetState() != api.AgentInfo_BANNED || resp.GetAgents()[0].GetBanReason() != "test" {
		t.Errorf("%v, %v", resp, err)
	}
	wantCode(t, gone.attest(""), codes.Unauthenticated, "not known here")
	wantCode(t, out.attest(""), codes.PermissionDenied, "banned")
}

func TestAWayOutThatIsOpenToOtherHostsIsRefusedUnlessNamedAndThenLoud(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	open := func(named bool) *corev3.Node {
		s := proxy.Shape{Bind: "192.0.2.7", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("192.0.2.7:15001")}, EgressOpen: named, AuthzSocket: "/a", WayoutSocket: "/w"}
		return &corev3.Node{Id: proxy.Node("shop", "web").String(), Metadata: s.Metadata()}
	}
	select {
	case err := <-h.follow(open(false), envoyTypes).err:
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "egress") {
			t.Errorf("not named: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("not named: served")
	}
	h.follow(open(true), envoyTypes).await("a view with the listener", func(s *ads.Set, _ *api.View) bool {
		return s.Get(ads.ListenerType, "lds_egress_192.0.2.7_15001") != nil
	})
	awaitFinding(t, r, "SIG019", "192.0.2.7:15001")
}

func TestAnAccessLogGoesOnlyWhereTheAgentsOperatorSays(t *testing.T) {
	logging := func(path string) string {
		return strings.Replace(shop, "metadata: {name: web}\nspec:\n", "metadata: {name: web}\nspec:\n  logging: {accessLog: {file: {path: "+path+"}}}\n", 1)
	}
	r := newRig(t)
	r.apply(registry + logging("/dev/stdout"))
	refused := func(path string, want ...string) {
		t.Helper()
		_, err := r.tryApply(logging(path))
		wantCode(t, err, codes.InvalidArgument, append([]string{"spec.logging.accessLog.file.path", "access_log_dir"}, want...)...)
	}
	refused("/var/log/mesh/web.log", "no connected agent has one")

	// An agent names its folder before it has any proxy.
	h := r.join("front")
	own := &corev3.Node{Id: h.spiffeID(), Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"signet.access_log_dir": structpb.NewStringValue("/var/log/mesh")}}}
	h.follow(own, ownTypes).await("its own resources", func(*ads.Set, *api.View) bool { return true })
	for _, path := range []string{
		"/etc/cron.d/x", "/var/log/mesh", "/var/log/mesh/", "/var/log/mesh/../syslog", "/var/log/mesh//x", "/var/log/meshes/x", "var/log/mesh/x",
		"/dev/stdout/../../etc/passwd", "/dev/null", "/proc/self/fd/1", "/dev/fd/2", `"/var/log/mesh/a\tb"`, "stdout",
	} {
		refused(path, "connected agents have /var/log/mesh")
	}
	r.apply(logging("/dev/stderr"))
	r.apply(logging("/var/log/mesh/web.log"))

	served := func(dir string) bool {
		s := proxy.Shape{Bind: "127.0.0.7", App: "127.0.0.1", Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.7:15001")}, AuthzSocket: "/a", WayoutSocket: "/w", AccessLogDir: dir}
		var logs bool
		h.follow(&corev3.Node{Id: proxy.Node("shop", "web").String(), Metadata: s.Metadata()}, envoyTypes).await("a view", func(set *ads.Set, _ *api.View) bool {
			l := set.Get(ads.ListenerType, "lds_ingress_127.0.0.7_8080")
			logs = l != nil && strings.Contains(string(l.Body), "/var/log/mesh/web.log")
			return l != nil
		})
		return logs
	}
	if !served("/var/log/mesh") {
		t.Error("the log is not written where it may be")
	}
	if served("") || served("/srv/log") {
		t.Error("the log is written where its agent names no folder, or another")
	}
	awaitFinding(t, r, "SIG032", "/var/log/mesh/web.log")

	// What is stored can be applied again while no agent is there; another path cannot.
	_ = h.conn.Close()
	eventually(t, "the agent is gone", func() bool {
		_, err := r.admin.Apply(t.Context(), &api.ApplyRequest{DryRun: true, Sources: []*api.Source{{File: "a.yaml", Content: []byte(logging("/var/log/mesh/other.log"))}}})
		return err != nil && strings.Contains(err.Error(), "no connected agent has one")
	})
	r.apply(logging("/var/log/mesh/web.log"))
}
