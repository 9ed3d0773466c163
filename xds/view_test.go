package xds_test

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/proxy/answers"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// The warning of mesh.Warnings and docs/DEVIATIONS.md say why.
func TestAllowAllOpensNothingInAProxy(t *testing.T) {
	const manifest = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {egressFilter: {type: FILTER}}\n---\n" +
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: front}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n"
	var sets []*ads.Set
	for _, filter := range []string{"DROP_ALL", "ALLOW_ALL"} {
		in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(strings.Replace(manifest, "FILTER", filter, 1))), TrustDomain: xdstest.TrustDomain}
		set, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, set)
	}
	if sets[0].Version() != sets[1].Version() {
		t.Error("a proxy of a mesh that allows all is sent something else")
	}
}

func build(t *testing.T, c xdstest.Case) *ads.Set {
	t.Helper()
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// changed lists the resources of a that b has in another version, or not.
func changed(a, b *ads.Set) []string {
	var names []string
	for _, typeURL := range a.Types() {
		for _, r := range a.Type(typeURL) {
			if o := b.Get(typeURL, r.Name); o == nil || o.Version != r.Version {
				names = append(names, r.Name)
			}
		}
	}
	return names
}

func TestEqualInputsGiveEqualBytesWhateverTheOrderOfEndpoints(t *testing.T) {
	c := xdstest.Load(t, "testdata/discovery")
	a := build(t, c)
	endpoints := c.Input.Endpoints
	c.Input.Endpoints = func(node proxy.Ref, port uint32) []xds.Endpoint {
		es := slices.Clone(endpoints(node, port))
		slices.Reverse(es)
		return es
	}
	for range 5 {
		if b := build(t, c); a.Version() != b.Version() {
			t.Fatalf("changed: %q", changed(a, b))
		}
	}
	c.Shape.Proxy, c.Shape.EnvoyVersion = "two", "1.40.1"
	if b := build(t, c); a.Version() != b.Version() {
		t.Errorf("another replica has another view: %q", changed(a, b))
	}
}

func TestANewPolicyChangesInboundRoutesOnly(t *testing.T) {
	c := xdstest.Load(t, "testdata/router")
	a := build(t, c)
	c.Input.PolicyRevision = "another"
	if got := changed(a, build(t, c)); !slices.Equal(got, []string{"rds_ingress_http_8080"}) {
		t.Errorf("changed: %q", got)
	}
}

func TestHardeningChangesTheListenersChainsOnly(t *testing.T) {
	c := xdstest.Load(t, "testdata/managed")
	a := build(t, c)
	c.Input.Strict = func(proxy.Ref) bool { return true }
	b := build(t, c)
	const name = "lds_ingress_127.0.0.2_8080"
	if got := changed(a, b); !slices.Equal(got, []string{name}) {
		t.Errorf("changed: %q", got)
	}
	before := decodeAs[*listenerv3.Listener](t, a.Get(ads.ListenerType, name))
	after := decodeAs[*listenerv3.Listener](t, b.Get(ads.ListenerType, name))
	if len(before.GetFilterChains()) != 2 || len(after.GetFilterChains()) != 1 {
		t.Fatalf("chains: %d, then %d", len(before.GetFilterChains()), len(after.GetFilterChains()))
	}
	before.FilterChains = before.GetFilterChains()[:1]
	if before.String() != after.String() {
		t.Error("more than the plaintext chain changed: Envoy would drain connections")
	}
}

// A caller may be told of a new mode before or after the proxy that it calls.
func TestAPlaintextListenerTakesMTLSToo(t *testing.T) {
	listener := func(tls string) *listenerv3.Listener {
		const manifest = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n---\n" +
			"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: front}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}, tls: TLS}]}\n"
		in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(strings.Replace(manifest, "TLS", tls, 1))), TrustDomain: xdstest.TrustDomain}
		set, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Type(ads.ListenerType) {
			if l := decodeAs[*listenerv3.Listener](t, r); l.GetTrafficDirection() == corev3.TrafficDirection_INBOUND {
				return l
			}
		}
		t.Fatal("no inbound listener")
		return nil
	}
	if listener("{mode: PERMISSIVE, certificate: {acm: {certificateARN: a}}}").String() != listener("{mode: DISABLED, certificate: {acm: {certificateARN: a}}}").String() {
		t.Error("a change from plaintext to both changes the listener")
	}
	// A certificate that the proxy may not have would hold up what needs none.
	other := listener("{mode: DISABLED, certificate: {sds: {secretName: \"spiffe://test.example/shop/other\"}}}")
	if chains := other.GetFilterChains(); len(chains) != 1 || chains[0].GetTransportSocket() != nil {
		t.Errorf("plaintext with another one's certificate has %d chains", len(chains))
	}
}

func TestAChangedClusterBringsItsEndpointsAgain(t *testing.T) {
	c := xdstest.Load(t, "testdata/ports")
	a := build(t, c)
	c.Input.SVIDLifetime = time.Minute // changes every cluster, no endpoint
	b := build(t, c)
	const name = "cds_egress_shop_orders_http_8080"
	x, y := a.Get(ads.EndpointType, name), b.Get(ads.EndpointType, name)
	if string(x.Body) != string(y.Body) || x.Version == y.Version {
		t.Errorf("bodies equal: %v, versions %s and %s", string(x.Body) == string(y.Body), x.Version, y.Version)
	}
}

func TestAnEndpointChangesItsAssignmentOnly(t *testing.T) {
	c := xdstest.Load(t, "testdata/ports")
	a := build(t, c)
	endpoints := c.Input.Endpoints
	c.Input.Endpoints = func(node proxy.Ref, port uint32) []xds.Endpoint {
		es := endpoints(node, port)
		if len(es) > 0 && port == 80 {
			es = append(slices.Clone(es), xds.Endpoint{Address: "2001:db8::1", Port: 80, Healthy: true})
		}
		return es
	}
	for _, name := range changed(a, build(t, c)) {
		if !strings.HasPrefix(name, "cds_egress_shop_orders_http_80") || a.Get(ads.EndpointType, name) == nil {
			t.Errorf("changed: %s", name)
		}
	}
}

func TestLosingRegistrationsNeverMeansPlaintextToAManagedNode(t *testing.T) {
	c := xdstest.Load(t, "testdata/discovery")
	const name = "cds_egress_shop_registered_http_8080"
	secure := func(set *ads.Set) bool {
		return decodeAs[*clusterv3.Cluster](t, set.Get(ads.ClusterType, name)).GetTransportSocket() != nil
	}
	if !secure(build(t, c)) {
		t.Fatal("a registered node is called in plaintext")
	}
	c.Input.Endpoints = nil
	c.Input.Managed = func(node proxy.Ref) bool { return node.Name == "registered" }
	if !secure(build(t, c)) {
		t.Error("the loss of the last registration turned mTLS into plaintext")
	}
}

func TestAClientPolicyThatIsNotEnforcedOrIsForOtherPortsDemandsNoTLS(t *testing.T) {
	const text = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: outside}, clientPolicy: {tls: {POLICYvalidation: {trust: {acm: {certificateAuthorityARNs: [a]}}, subjectAlternativeNames: {match: {exact: ["spiffe://test.example/named"]}}}}}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: outside}
spec: {listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 443, protocol: http}}], serviceDiscovery: {dns: {hostname: outside.example}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: outside}
spec: {provider: {virtualNode: {virtualNodeRef: {name: outside}}}}
`
	for _, row := range []struct {
		policy           string
		managed          bool
		plain, encrypted bool // port 80, port 443
		named            bool // port 80 demands the policy's name
	}{
		{policy: "", plain: true, encrypted: true, named: true},
		{policy: "enforce: false, "},
		{policy: "ports: [443], ", encrypted: true},
		{policy: "enforce: false, ports: [443], "},
		// It takes nothing away: who is in the mesh is verified, by the names that are given.
		{policy: "enforce: false, ", managed: true, plain: true, encrypted: true, named: true},
		{policy: "ports: [443], ", managed: true, plain: true, encrypted: true},
	} {
		in := xds.Input{
			Graph: graphtest.Graph(t, "mesh.yaml", []byte(strings.Replace(text, "POLICY", row.policy, 1))), TrustDomain: xdstest.TrustDomain,
			Managed: func(proxy.Ref) bool { return row.managed },
		}
		set, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
		if err != nil {
			t.Fatal(err)
		}
		socket := func(port string) *corev3.TransportSocket {
			return decodeAs[*clusterv3.Cluster](t, set.Get(ads.ClusterType, "cds_egress_shop_outside_http_"+port)).GetTransportSocket()
		}
		if plain, encrypted := socket("80") != nil, socket("443") != nil; plain != row.plain || encrypted != row.encrypted {
			t.Errorf("%+v: TLS to port 80: %t, to port 443: %t", row, plain, encrypted)
		}
		if named := strings.Contains(string(socket("80").GetTypedConfig().GetValue()), "spiffe://test.example/named"); named != row.named {
			t.Errorf("%+v: port 80 must be of the policy's name: %t", row, named)
		}
	}
}

func TestConnectionsEndWithinOneSVIDLifetime(t *testing.T) {
	c := xdstest.Load(t, "testdata/managed")
	for _, lifetime := range []time.Duration{0, 6 * time.Second, time.Hour, 24 * time.Hour} {
		c.Input.SVIDLifetime = lifetime
		if lifetime == 0 {
			lifetime = xds.DefaultSVIDLifetime
		}
		connection, stream, idle, upstream := lifetimes(t, build(t, c))
		if connection+max(stream, idle) > lifetime {
			t.Errorf("%s: connection %s, stream %s, idle %s", lifetime, connection, stream, idle)
		}
		if upstream >= connection && upstream != 0 {
			t.Errorf("%s: the client keeps a connection for %s, the server for %s", lifetime, upstream, connection)
		}
	}
}

func TestOnlyTheNodesOwnBackendsAreInItsView(t *testing.T) {
	c := xdstest.Load(t, "testdata/discovery")
	for _, r := range build(t, c).Type(ads.ClusterType) {
		if strings.Contains(r.Name, "undeclared") {
			t.Errorf("cluster %s", r.Name)
		}
	}
	for _, h := range decodeAs[*routev3.RouteConfiguration](t, build(t, c).Get(ads.RouteType, "rds_egress_http_15001")).GetVirtualHosts() {
		if slices.Contains(h.GetDomains(), "*") || strings.Contains(h.GetName(), "undeclared") {
			t.Errorf("virtual host %s for %q", h.GetName(), h.GetDomains())
		}
	}
}

func TestBuildRefusesWhatNoProxyCouldRun(t *testing.T) {
	for name, change := range map[string]func(*xdstest.Case){
		"no graph":     func(c *xdstest.Case) { c.Input.Graph = nil },
		"no such node": func(c *xdstest.Case) { c.Node = "nobody" },
		"no such mesh": func(c *xdstest.Case) { c.Mesh = "nowhere" },
		"bad shape":    func(c *xdstest.Case) { c.Shape.App = c.Shape.Bind },
		"egress in the application's place": func(c *xdstest.Case) {
			c.Shape.App = "unix:/run/web/{port}.sock"
			c.Shape.Egress = proxy.Egress{Socket: "/run/web/8080.sock", Mode: 0o660}
		},
		"egress on a listener's port": func(c *xdstest.Case) {
			c.Shape.Egress = proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.2:8080")}
		},
		"an endpoint by name": func(c *xdstest.Case) {
			c.Input.Endpoints = func(proxy.Ref, uint32) []xds.Endpoint { return []xds.Endpoint{{Address: "a.example", Port: 1}} }
		},
		"an endpoint without port": func(c *xdstest.Case) {
			c.Input.Endpoints = func(proxy.Ref, uint32) []xds.Endpoint {
				return []xds.Endpoint{{Address: "10.0.0.1", Port: 70000}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := xdstest.Load(t, "testdata/ports")
			change(&c)
			set, err := xds.Build(c.Input, c.Ref(), c.Shape)
			if err == nil || set != nil {
				t.Fatalf("built %v", set)
			}
			if strings.HasPrefix(name, "no such") != errors.Is(err, xds.ErrNoNode) || (name == "bad shape") != errors.Is(err, proxy.ErrShape) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	c := xdstest.Load(b, "testdata/router")
	for b.Loop() {
		if _, err := xds.Build(c.Input, c.Ref(), c.Shape); err != nil {
			b.Fatal(err)
		}
	}
}

// lifetimes reads what bounds connections: inbound, and the longest outbound.
func lifetimes(t *testing.T, set *ads.Set) (connection, stream, idle, upstream time.Duration) {
	t.Helper()
	l := decodeAs[*listenerv3.Listener](t, set.Get(ads.ListenerType, "lds_ingress_127.0.0.2_8080"))
	var m hcmv3.HttpConnectionManager
	filters := l.GetFilterChains()[0].GetFilters()
	if err := filters[len(filters)-1].GetTypedConfig().UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	o := m.GetCommonHttpProtocolOptions()
	for _, r := range set.Type(ads.ClusterType) {
		for _, a := range decodeAs[*clusterv3.Cluster](t, r).GetTypedExtensionProtocolOptions() {
			var h httpv3.HttpProtocolOptions
			if err := a.UnmarshalTo(&h); err != nil {
				t.Fatal(err)
			}
			d := h.GetCommonHttpProtocolOptions().GetMaxConnectionDuration().AsDuration()
			upstream = max(upstream, d+d/10) // with Envoy's jitter
		}
	}
	return o.GetMaxConnectionDuration().AsDuration(), o.GetMaxStreamDuration().AsDuration(), o.GetIdleTimeout().AsDuration(), upstream
}

// answerLogs are the lines that the listeners of a view write of answers of the proxy's own:
// their fields, and whose they are.
func answerLogs(t *testing.T, c xdstest.Case) (fields map[string]bool, ofRequests, ofConnections int) {
	t.Helper()
	fields = map[string]bool{}
	add := func(logs []*accesslogv3.AccessLog) (n int) {
		for _, l := range logs {
			var line streamv3.StderrAccessLog
			if l.GetTypedConfig().UnmarshalTo(&line) != nil {
				continue // the node's own
			}
			n++
			for name := range line.GetLogFormat().GetJsonFormat().GetFields() {
				fields[name] = true
			}
		}
		return n
	}
	for _, r := range build(t, c).Type(ads.ListenerType) {
		l := decodeAs[*listenerv3.Listener](t, r)
		ofConnections += add(l.GetAccessLog())
		for _, chain := range l.GetFilterChains() {
			var m hcmv3.HttpConnectionManager
			if chain.GetFilters()[len(chain.GetFilters())-1].GetTypedConfig().UnmarshalTo(&m) == nil {
				ofRequests += add(m.GetAccessLog())
			}
		}
	}
	return fields, ofRequests, ofConnections
}

// The agent reads what Envoy writes: both have the fields from one type.
func TestTheLineOfAnAnswerHasTheFieldsThatAreRead(t *testing.T) {
	fields, ofRequests, ofConnections := answerLogs(t, xdstest.Load(t, "testdata/strict"))
	written := slices.Sorted(maps.Keys(fields))
	var read []string
	for f := range reflect.TypeFor[answers.Line]().Fields() {
		read = append(read, f.Tag.Get("json"))
	}
	slices.Sort(read)
	if !slices.Equal(written, read) {
		t.Errorf("Envoy writes %v, the agent reads %v", written, read)
	}
	if ofRequests == 0 || ofConnections == 0 {
		t.Errorf("%d logs of requests, %d of connections", ofRequests, ofConnections)
	}
}

// An agent of the release before logs each line that it does not know.
func TestAnAgentThatDoesNotTakeThemIsSentNoAnswersButDenials(t *testing.T) {
	for _, name := range []string{"strict", "tcp"} {
		c := xdstest.Load(t, "testdata/"+name)
		c.Shape.Answers = false
		_, _, ofConnections := answerLogs(t, c)
		if ofConnections != 0 {
			t.Errorf("%s: %d logs of connections", name, ofConnections)
		}
		for _, r := range build(t, c).Type(ads.ListenerType) {
			if text := prototext.Format(decodeAs[*listenerv3.Listener](t, r)); strings.Contains(text, "response_flag_filter") {
				t.Errorf("%s: %s writes of more than denials", name, r.Name)
			}
		}
	}
}

func TestWhatIsKeptIsStampedAsIfItWereMadeNow(t *testing.T) {
	for _, name := range []string{"router", "discovery", "protocols"} {
		c := xdstest.Load(t, "testdata/"+name)
		was := build(t, c)
		c.Input.PolicyRevision = "another"
		is := build(t, c)
		for _, r := range was.Type(ads.RouteType) {
			got, err := xds.Stamped(r, "another")
			if err != nil || got.Version != is.Get(r.Type, r.Name).Version {
				t.Errorf("%s: %s: %v, %v", name, r.Name, got, err)
			}
			if back, err := xds.Stamped(got, "5f0c2a"); err != nil || back.Version != r.Version {
				t.Errorf("%s: %s and back: %v, %v", name, r.Name, back, err)
			}
			if same, err := xds.Stamped(r, "5f0c2a"); err != nil || same != r {
				t.Errorf("%s: %s by its own: %v, %v", name, r.Name, same, err)
			}
		}
	}
}

func TestWhatIsKeptCallsNobodyWhoIsGone(t *testing.T) {
	r := build(t, xdstest.Load(t, "testdata/discovery")).Get(ads.EndpointType, "cds_egress_shop_registered_http_8080")
	there := func(list ...string) *endpointv3.ClusterLoadAssignment {
		got, err := xds.Among(r, func(address string, _ uint32) bool { return slices.Contains(list, address) })
		if err != nil {
			t.Fatal(err)
		}
		cla := &endpointv3.ClusterLoadAssignment{}
		if err := proto.Unmarshal(got.Body, cla); err != nil {
			t.Fatal(err)
		}
		if (got == r) != (len(list) == 2) || got != r && got.Version == r.Version {
			t.Errorf("of %q: the same one %v, its version %s", list, got == r, got.Version)
		}
		return cla
	}
	there("10.0.0.7", "10.0.0.8")
	if left := there("10.0.0.7").GetEndpoints()[0].GetLbEndpoints(); len(left) != 1 || left[0].GetEndpoint().GetAddress().GetSocketAddress().GetAddress() != "10.0.0.7" {
		t.Errorf("left: %v", left)
	}
	if left := there().GetEndpoints(); len(left) != 0 {
		t.Errorf("left of nobody: %v", left)
	}
}
