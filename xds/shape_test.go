package xds_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

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

// socket gives a shape a way out that is one.
func socket(s *xds.Shape, path string, mode uint32) {
	s.Egress, s.EgressSocket, s.EgressMode = netip.AddrPort{}, path, mode
}

func TestShapesThatWouldLoopOrFailAreRefused(t *testing.T) {
	if err := xdstest.Shape.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*xds.Shape){
		"no bind":             func(s *xds.Shape) { s.Bind = "" },
		"a name":              func(s *xds.Shape) { s.Bind = "localhost" },
		"every address":       func(s *xds.Shape) { s.Bind = "0.0.0.0" },
		"every IPv6 address":  func(s *xds.Shape) { s.App = "::" },
		"multicast":           func(s *xds.Shape) { s.Bind = "224.0.0.1" },
		"a zone":              func(s *xds.Shape) { s.Bind = "fe80::1%eth0" },
		"IPv4 in IPv6":        func(s *xds.Shape) { s.App = "::ffff:127.0.0.2" },
		"app is bind":         func(s *xds.Shape) { s.App = s.Bind },
		"no egress":           func(s *xds.Shape) { s.Egress = netip.AddrPort{} },
		"port 0":              func(s *xds.Shape) { s.Egress = netip.MustParseAddrPort("127.0.0.2:0") },
		"open to the network": func(s *xds.Shape) { s.Egress = netip.MustParseAddrPort("192.0.2.7:15001") },
		"open to all":         func(s *xds.Shape) { s.Egress = netip.MustParseAddrPort("0.0.0.0:15001") },
		"open to IPv6":        func(s *xds.Shape) { s.Egress = netip.MustParseAddrPort("[2001:db8::7]:15001") },
		"all, by name":        func(s *xds.Shape) { s.Egress, s.EgressOpen = netip.MustParseAddrPort("0.0.0.0:15001"), true },
		"open in IPv6's form": func(s *xds.Shape) { s.Egress = netip.MustParseAddrPort("[::ffff:127.0.0.1]:15001") },
		"open for nothing":    func(s *xds.Shape) { s.EgressOpen = true },
		"no socket":           func(s *xds.Shape) { s.AuthzSocket = "" },
		"a relative socket":   func(s *xds.Shape) { s.AuthzSocket = "run/authz.sock" },
		"an unclean socket":   func(s *xds.Shape) { s.AuthzSocket = "/run/../etc/x" },
		"a long socket":       func(s *xds.Shape) { s.AuthzSocket = "/" + strings.Repeat("x", 107) },
		"a socket with NUL":   func(s *xds.Shape) { s.AuthzSocket = "/run/a\x00b" },
		"an abstract socket":  func(s *xds.Shape) { s.AuthzSocket = "@authz" },
		"an old Envoy":        func(s *xds.Shape) { s.EnvoyVersion = "1.37.9" },
		"not a version":       func(s *xds.Shape) { s.EnvoyVersion = "latest" },
		"a proxy with a line": func(s *xds.Shape) { s.Proxy = "a\nb" },

		"one socket for all ports":  func(s *xds.Shape) { s.App = "unix:/run/web/app.sock" },
		"a folder for each port":    func(s *xds.Shape) { s.App = "unix:/run/{port}/app.sock" },
		"the port twice":            func(s *xds.Shape) { s.App = "unix:/run/web/{port}{port}" },
		"a relative application":    func(s *xds.Shape) { s.App = "unix:run/{port}.sock" },
		"an unclean application":    func(s *xds.Shape) { s.App = "unix:/run/../etc/{port}" },
		"an abstract application":   func(s *xds.Shape) { s.App = "unix:@web-{port}" },
		"too long with five digits": func(s *xds.Shape) { s.App = "unix:/" + strings.Repeat("x", 102) + "{port}" },
		"a socket for everybody":    func(s *xds.Shape) { socket(s, "/run/out.sock", 0o666) },
		"a socket for others":       func(s *xds.Shape) { socket(s, "/run/out.sock", 0o606) },
		"a socket without a mode":   func(s *xds.Shape) { socket(s, "/run/out.sock", 0) },
		"a socket of the agent":     func(s *xds.Shape) { socket(s, s.WayoutSocket, 0o660) },
		"a relative way out":        func(s *xds.Shape) { socket(s, "run/out.sock", 0o660) },
		"a socket beside a port":    func(s *xds.Shape) { s.EgressSocket, s.EgressMode = "/run/out.sock", 0o660 },
		"a socket that is open":     func(s *xds.Shape) { socket(s, "/run/out.sock", 0o660); s.EgressOpen = true },
		"a mode of an address":      func(s *xds.Shape) { s.EgressMode = 0o660 },
	} {
		s := xdstest.Shape
		change(&s)
		if err := s.Validate(); !errors.Is(err, xds.ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAShapeTravelsAsNodeMetadata(t *testing.T) {
	for _, s := range []xds.Shape{
		xdstest.Shape,
		{Bind: "::1", App: "127.0.0.1", Egress: netip.MustParseAddrPort("[::1]:1"), AuthzSocket: "/a", WayoutSocket: "/w"},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: netip.MustParseAddrPort("127.0.0.1:15001"), AuthzSocket: "/a", WayoutSocket: "/w"},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: netip.MustParseAddrPort("192.0.2.8:15001"), EgressOpen: true, AuthzSocket: "/a", WayoutSocket: "/w"},
		{Bind: "192.0.2.7", App: "unix:/run/web/{port}.sock", EgressSocket: "/run/out/web.sock", EgressMode: 0o600, AuthzSocket: "/a", WayoutSocket: "/w"},
	} {
		got, err := xds.ShapeFromNode(&corev3.Node{Metadata: s.Metadata()})
		if err != nil || got != s {
			t.Errorf("%+v came back as %+v, %v", s, got, err)
		}
	}
	for name, change := range map[string]func(map[string]*structpb.Value){
		"an unknown field":    func(f map[string]*structpb.Value) { f["x"] = structpb.NewStringValue("y") },
		"a number as text":    func(f map[string]*structpb.Value) { f["egress"] = structpb.NewStringValue("1") },
		"a name":              func(f map[string]*structpb.Value) { f["egress"] = structpb.NewStringValue("localhost:1") },
		"port 0":              func(f map[string]*structpb.Value) { f["egress"] = structpb.NewNumberValue(0) },
		"port 65536":          func(f map[string]*structpb.Value) { f["egress"] = structpb.NewNumberValue(65536) },
		"open as text":        func(f map[string]*structpb.Value) { f["egress_open"] = structpb.NewStringValue("true") },
		"open, in silence":    func(f map[string]*structpb.Value) { f["egress"] = structpb.NewStringValue("192.0.2.7:15001") },
		"a socket by no path": func(f map[string]*structpb.Value) { f["egress"] = structpb.NewStringValue("unix:") },
		"a mode for a port":   func(f map[string]*structpb.Value) { f["egress_mode"] = structpb.NewStringValue("0660") },
		"a mode that is none": func(f map[string]*structpb.Value) { f["egress_mode"] = structpb.NewStringValue("rw") },
		"a mode as a number": func(f map[string]*structpb.Value) {
			f["egress"], f["egress_mode"] = structpb.NewStringValue("unix:/o"), structpb.NewNumberValue(600)
		},
		"a socket for everyone": func(f map[string]*structpb.Value) {
			f["egress"], f["egress_mode"] = structpb.NewStringValue("unix:/o"), structpb.NewStringValue("0666")
		},
		"half a port":      func(f map[string]*structpb.Value) { f["egress"] = structpb.NewNumberValue(1.5) },
		"text as a number": func(f map[string]*structpb.Value) { f["bind"] = structpb.NewNumberValue(1) },
		"nothing":          func(f map[string]*structpb.Value) { clear(f) },
	} {
		md := proto.CloneOf(xdstest.Shape.Metadata())
		change(md.GetFields()["signet.shape"].GetStructValue().GetFields())
		if _, err := xds.ShapeFromNode(&corev3.Node{Metadata: md}); !errors.Is(err, xds.ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := xds.ShapeFromNode(nil); !errors.Is(err, xds.ErrShape) {
		t.Errorf("no node: %v", err)
	}
}

func TestAShapeWithOnlyAnEgressPortNeverOpensItToOtherHosts(t *testing.T) {
	for bind, want := range map[string]string{
		"192.0.2.7": "127.0.0.1:15001", "2001:db8::7": "127.0.0.1:15001", // not where others reach it
		"127.0.0.9": "127.0.0.9:15001", "::1": "[::1]:15001",
	} {
		for _, egress := range []*structpb.Value{structpb.NewNumberValue(15001), nil} {
			fields := xds.Shape{Bind: bind, App: "127.0.0.1", AuthzSocket: "/a", WayoutSocket: "/w"}.Metadata().GetFields()
			shape := fields["signet.shape"].GetStructValue().GetFields()
			if delete(shape, "egress"); egress != nil {
				shape["egress"] = egress
			}
			s, err := xds.ShapeFromNode(&corev3.Node{Metadata: &structpb.Struct{Fields: fields}})
			if err != nil || s.Egress.String() != want || s.EgressOpen {
				t.Errorf("bind %s, egress %v: %s, open %v, %v; want %s", bind, egress, s.Egress, s.EgressOpen, err, want)
			}
		}
	}
}

func TestNodeIDsAreReadInBothForms(t *testing.T) {
	for in, want := range map[string][2]string{
		xds.NodeID("m", "n"):                                                      {"m", "n"},
		"mesh/m/virtualNode/n_default":                                            {"m", "n_default"},
		"arn:aws:appmesh:eu-west-1:123456789012:mesh/m/virtualNode/n":             {"m", "n"},
		"arn:aws-cn:appmesh-preview:cn-north-1:123456789012:mesh/m/virtualNode/n": {"m", "n"},
	} {
		if m, n, err := xds.ParseNodeID(in); err != nil || m != want[0] || n != want[1] {
			t.Errorf("%s: %q %q %v", in, m, n, err)
		}
	}
	for _, in := range []string{
		"", "m/n", "mesh/m/virtualNode/", "mesh//virtualNode/n", "mesh/m/virtualGateway/n", "mesh/m/virtualNode/n/x",
		"arn:aws:ecs:eu-west-1:1:mesh/m/virtualNode/n", "arn:aws:appmesh:mesh/m/virtualNode/n", "/mesh/m/virtualNode/n", strings.Repeat("x", 2000),
	} {
		if m, n, err := xds.ParseNodeID(in); err == nil {
			t.Errorf("%q was read as %q %q", in, m, n)
		}
	}
}

func FuzzParseNodeID(f *testing.F) {
	f.Add("mesh/m/virtualNode/n")
	f.Add("arn:aws:appmesh:eu-west-1:1:mesh/m/virtualNode/n")
	f.Fuzz(func(t *testing.T, s string) {
		m, n, err := xds.ParseNodeID(s)
		if err != nil {
			return
		}
		if m2, n2, err := xds.ParseNodeID(xds.NodeID(m, n)); err != nil || m2 != m || n2 != n {
			t.Errorf("%q: %q %q, again %q %q %v", s, m, n, m2, n2, err)
		}
	})
}

func FuzzShapeFromNode(f *testing.F) {
	good, err := proto.Marshal(xdstest.Shape.Metadata())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		var st structpb.Struct
		if proto.Unmarshal(b, &st) != nil {
			return
		}
		s, err := xds.ShapeFromNode(&corev3.Node{Metadata: &st})
		if err != nil {
			return
		}
		if again, err := xds.ShapeFromNode(&corev3.Node{Metadata: s.Metadata()}); err != nil || again != s {
			t.Errorf("%+v, again %+v %v", s, again, err)
		}
	})
}
