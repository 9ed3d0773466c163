package xdstest_test

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	"signet.example/test/invariants"
	"signet.example/test/parts"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// nameserver answers for the names that it has, both families at once, says
// nothing at all to a query for another, and remembers what it was asked.
type nameserver struct {
	at     netip.AddrPort
	a      map[string]netip.Addr
	silent atomic.Bool // to every name

	mu    sync.Mutex
	aaaa  netip.Addr     // of every name; guarded by mu
	asked map[string]int // by "name type"; guarded by mu
}

func startNameserver(t *testing.T, a map[string]netip.Addr) *nameserver {
	t.Helper()
	n := &nameserver{a: a, aaaa: netip.MustParseAddr("100::1"), asked: map[string]int{}} // leads nowhere (RFC 6666), if nothing else is said
	n.at = parts.Nameserver(t, netip.MustParseAddrPort("127.0.0.1:0"), n.answer)
	return n
}

func (n *nameserver) answer(name string, q dnsmessage.Type) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[name+" "+q.String()]++
	a, ok := n.a[name]
	if q == dnsmessage.TypeAAAA {
		a = n.aaaa
	}
	return a, ok && !n.silent.Load()
}

func (n *nameserver) count(question string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[question]
}

// resolvers makes each DNS cluster ask n in place of the host's resolver, and
// leaves all else of it as it was generated.
func (n *nameserver) resolvers(t *testing.T) func(*ads.Resource) *ads.Resource {
	t.Helper()
	return func(r *ads.Resource) *ads.Resource {
		if r.Type != ads.ClusterType {
			return r
		}
		m, err := invariants.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		var dns dnsclusterv3.DnsCluster
		c := m.(*clusterv3.Cluster)
		if c.GetClusterType().GetTypedConfig().UnmarshalTo(&dns) != nil {
			return r
		}
		var cares caresv3.CaresDnsResolverConfig
		if err := dns.GetTypedDnsResolverConfig().GetTypedConfig().UnmarshalTo(&cares); err != nil {
			t.Fatal(err)
		}
		cares.Resolvers = []*corev3.Address{{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n.at.Port())},
		}}}}
		dns.TypedDnsResolverConfig.TypedConfig = packed(t, &cares)
		c.GetClusterType().TypedConfig = packed(t, &dns)
		out, err := ads.NewResource(r.Type, r.Name, c)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// callers calls two names that are found by DNS, in each of App Mesh's ways.
func callers(port uint32) string {
	text := `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
`
	var backends []string
	for _, name := range []string{"both", "silent"} {
		for _, way := range []string{"ENDPOINTS", "LOADBALANCER"} {
			service := name + "-" + strings.ToLower(way)
			backends = append(backends, "{virtualService: {virtualServiceRef: {name: "+service+"}}}")
			text += strings.NewReplacer("SERVICE", service, "NAME", name, "WAY", way).Replace(`---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: SERVICE}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  serviceDiscovery: {dns: {hostname: NAME.dns.internal, responseType: WAY}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: SERVICE}
spec: {awsName: SERVICE.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: SERVICE}}}}
`)
		}
	}
	text += `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  backends: [` + strings.Join(backends, ", ") + "]\n"
	return strings.ReplaceAll(text, "PORT", strconv.FormatUint(uint64(port), 10))
}

func TestANameThatIsNotAnsweredHoldsNothingElse(t *testing.T) {
	stub, app, pki := startStub(t), startApplication(t), newPKI(t)
	dns := startNameserver(t, map[string]netip.Addr{"both.dns.internal.": netip.MustParseAddr(app.address)})
	bind := loopback()
	c := xdstest.Case{
		Name: "dns", Mesh: "shop", Node: "orders",
		Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(callers(app.port))), TrustDomain: xdstest.TrustDomain},
		Shape: proxy.Shape{Bind: bind, App: app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
	}
	began := time.Now()
	p := startEdited(t, c, pki, dns.resolvers(t))
	in := net.JoinHostPort(c.Shape.Bind, strconv.FormatUint(uint64(app.port), 10))
	eventually(t, "the inbound listener serves", func() bool {
		conn, err := net.Dial("tcp", in)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return sendHTTP1(t, in, "/q") == http.StatusOK
	})
	took := time.Since(began)
	t.Logf("served %s after the start of Envoy, with a name that is never answered", took)
	if took > 10*time.Second { // c-ares' own bounds: 70 s and more
		t.Errorf("served after %s", took)
	}
	if dns.count("silent.dns.internal. TypeA") == 0 {
		t.Error("nobody asked for the silent name: the test sees nothing")
	}

	// The name that is answered is called by IPv4, though it has an IPv6 address too.
	out := c.Shape.Egress.String()
	for _, way := range []string{"endpoints", "loadbalancer"} {
		r := raw(t, out, "GET http://both-"+way+".shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if corpus.Status(r) != http.StatusOK {
			t.Errorf("a name with both families, %s: %v", way, r)
		}
	}
	if n := dns.count("both.dns.internal. TypeAAAA"); n != 0 {
		t.Errorf("%d questions for an IPv6 address", n)
	}

	// A second dead name later holds nothing either, and what is there goes on.
	before := dns.count("late.dns.internal. TypeA")
	text := strings.ReplaceAll(callers(app.port), "silent.dns.internal", "late.dns.internal")
	c.Input.Graph = graphtest.Graph(t, "mesh.yaml", []byte(text))
	p.publish(c, pki)
	eventually(t, "the late name is asked for", func() bool { return dns.count("late.dns.internal. TypeA") > before })
	if code := sendHTTP1(t, in, "/q"); code != http.StatusOK {
		t.Errorf("inbound, while a new name is not answered: %d", code)
	}

	// The resolver falls silent: what was found is called on, after a lookup has failed, too.
	dns.silent.Store(true)
	before = dns.count("both.dns.internal. TypeA")
	// Two clusters ask twice each before they give up.
	eventually(t, "a lookup fails and the next one begins", func() bool { return dns.count("both.dns.internal. TypeA") > before+2*2 })
	for _, way := range []string{"endpoints", "loadbalancer"} {
		r := raw(t, out, "GET http://both-"+way+".shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if corpus.Status(r) != http.StatusOK {
			t.Errorf("a name that is not answered any more, %s: %v", way, r)
		}
	}
}

// The A record leads to a host that has nothing, the AAAA record to one that answers.
func TestANameIsCalledByTheFamilyThatItsNodeOrElseItsMeshPrefers(t *testing.T) {
	stub, pki := startStub(t), newPKI(t)
	dns := startNameserver(t, map[string]netip.Addr{"six.dns.internal.": netip.MustParseAddr(loopback())})
	dns.mu.Lock()
	dns.aaaa = netip.IPv6Loopback()
	dns.mu.Unlock()
	port, reachable := uint32(8080), false
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil { // else there is no IPv6 here, and only questions are looked at
		port, reachable = uint32(l.Addr().(*net.TCPAddr).Port), true //nolint:gosec // a port
		app := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
		go func() { _ = app.Serve(l) }()
		t.Cleanup(func() { _ = app.Close() })
	}
	bind := loopback()
	of := func(mesh, node string) xdstest.Case {
		text := strings.NewReplacer("MESH", mesh, "NODE", node, "PORT", strconv.FormatUint(uint64(port), 10)).Replace(`
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {MESH}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: six}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  serviceDiscovery: {dns: {hostname: six.dns.internal NODE}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: six}
spec: {awsName: six.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: six}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec: {backends: [{virtualService: {virtualServiceRef: {name: six}}}]}
`)
		return xdstest.Case{
			Name: "dns", Mesh: "shop", Node: "orders",
			Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain},
			Shape: proxy.Shape{Bind: bind, App: "127.0.0.1", Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
		}
	}
	c := of("meshServiceDiscovery: {ipPreference: IPv6_PREFERRED}", "")
	p := startEdited(t, c, pki, dns.resolvers(t))
	for what, next := range map[string]xdstest.Case{
		"the mesh prefers it": c,
		"the node wants it":   of("meshServiceDiscovery: {ipPreference: IPv4_ONLY}", ", ipPreference: IPv6_ONLY"),
	} {
		before := dns.count("six.dns.internal. TypeAAAA")
		p.publish(next, pki)
		p.settle()
		eventually(t, what+": its AAAA record is asked for", func() bool { return dns.count("six.dns.internal. TypeAAAA") > before })
		if !reachable {
			continue
		}
		eventually(t, what+": it is called by IPv6", func() bool {
			return corpus.Status(raw(t, c.Shape.Egress.String(), "GET http://six.shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == http.StatusOK
		})
	}
}
