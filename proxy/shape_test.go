package proxy_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/proxy"
)

// aShape is one with every field that most have.
var aShape = proxy.Shape{
	Bind: "127.0.0.2", App: "127.0.0.1", Egress: at("127.0.0.2:15001"),
	AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock", EnvoyVersion: "1.40.0", Proxy: "one",
}

func at(address string) proxy.Egress {
	return proxy.Egress{AddrPort: netip.MustParseAddrPort(address)}
}

// socket gives a shape a way out that is one.
func socket(s *proxy.Shape, path string, mode uint32) {
	s.Egress = proxy.Egress{Socket: path, Mode: mode}
}

func TestShapesThatWouldLoopOrFailAreRefused(t *testing.T) {
	if err := aShape.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*proxy.Shape){
		"no bind":             func(s *proxy.Shape) { s.Bind = "" },
		"a name":              func(s *proxy.Shape) { s.Bind = "localhost" },
		"every address":       func(s *proxy.Shape) { s.Bind = "0.0.0.0" },
		"every IPv6 address":  func(s *proxy.Shape) { s.App = "::" },
		"multicast":           func(s *proxy.Shape) { s.Bind = "224.0.0.1" },
		"a zone":              func(s *proxy.Shape) { s.Bind = "fe80::1%eth0" },
		"IPv4 in IPv6":        func(s *proxy.Shape) { s.App = "::ffff:127.0.0.2" },
		"app is bind":         func(s *proxy.Shape) { s.App = s.Bind },
		"no egress":           func(s *proxy.Shape) { s.Egress = proxy.Egress{} },
		"port 0":              func(s *proxy.Shape) { s.Egress = at("127.0.0.2:0") },
		"open to the network": func(s *proxy.Shape) { s.Egress = at("192.0.2.7:15001") },
		"open to all":         func(s *proxy.Shape) { s.Egress = at("0.0.0.0:15001") },
		"open to IPv6":        func(s *proxy.Shape) { s.Egress = at("[2001:db8::7]:15001") },
		"all, by name":        func(s *proxy.Shape) { s.Egress, s.EgressOpen = at("0.0.0.0:15001"), true },
		"open in IPv6's form": func(s *proxy.Shape) { s.Egress = at("[::ffff:127.0.0.1]:15001") },
		"open for nothing":    func(s *proxy.Shape) { s.EgressOpen = true },
		"no socket":           func(s *proxy.Shape) { s.AuthzSocket = "" },
		"a relative socket":   func(s *proxy.Shape) { s.AuthzSocket = "run/authz.sock" },
		"an unclean socket":   func(s *proxy.Shape) { s.AuthzSocket = "/run/../etc/x" },
		"a long socket":       func(s *proxy.Shape) { s.AuthzSocket = "/" + strings.Repeat("x", 107) },
		"a socket with NUL":   func(s *proxy.Shape) { s.AuthzSocket = "/run/a\x00b" },
		"an abstract socket":  func(s *proxy.Shape) { s.AuthzSocket = "@authz" },
		"an old Envoy":        func(s *proxy.Shape) { s.EnvoyVersion = "1.37.9" },
		"not a version":       func(s *proxy.Shape) { s.EnvoyVersion = "latest" },
		"a proxy with a line": func(s *proxy.Shape) { s.Proxy = "a\nb" },

		"one socket for all ports":  func(s *proxy.Shape) { s.App = "unix:/run/web/app.sock" },
		"a folder for each port":    func(s *proxy.Shape) { s.App = "unix:/run/{port}/app.sock" },
		"the port twice":            func(s *proxy.Shape) { s.App = "unix:/run/web/{port}{port}" },
		"a relative application":    func(s *proxy.Shape) { s.App = "unix:run/{port}.sock" },
		"an unclean application":    func(s *proxy.Shape) { s.App = "unix:/run/../etc/{port}" },
		"an abstract application":   func(s *proxy.Shape) { s.App = "unix:@web-{port}" },
		"too long with five digits": func(s *proxy.Shape) { s.App = "unix:/" + strings.Repeat("x", 102) + "{port}" },
		"a socket for everybody":    func(s *proxy.Shape) { socket(s, "/run/out.sock", 0o666) },
		"a socket for others":       func(s *proxy.Shape) { socket(s, "/run/out.sock", 0o606) },
		"a socket without a mode":   func(s *proxy.Shape) { socket(s, "/run/out.sock", 0) },
		"a socket of the agent":     func(s *proxy.Shape) { socket(s, s.WayoutSocket, 0o660) },
		"a relative way out":        func(s *proxy.Shape) { socket(s, "run/out.sock", 0o660) },
		"a socket beside a port":    func(s *proxy.Shape) { s.Egress.Socket, s.Egress.Mode = "/run/out.sock", 0o660 },
		"a socket that is open":     func(s *proxy.Shape) { socket(s, "/run/out.sock", 0o660); s.EgressOpen = true },
		"a mode of an address":      func(s *proxy.Shape) { s.Egress.Mode = 0o660 },
	} {
		s := aShape
		change(&s)
		if err := s.Validate(); !errors.Is(err, proxy.ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAGatewaysShapeHasNoApplicationAndNoWayOut(t *testing.T) {
	gateway := proxy.For("shop", "edge", true)
	s := proxy.Shape{Bind: "127.0.0.1", AuthzSocket: "/a", WayoutSocket: "/w", Alone: true}
	got, err := proxy.ParseShape(s.Metadata(), func(s *proxy.Shape) { s.Suit(gateway) })
	if err != nil || got != s {
		t.Errorf("%+v came back as %+v, %v", s, got, err)
	}
	// What an Envoy declares beside it is of no use to it.
	if got, err = proxy.ParseShape(aShape.Metadata(), func(s *proxy.Shape) { s.Suit(gateway) }); err != nil || got.App != "" || got.Egress != (proxy.Egress{}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := proxy.ParseShape(s.Metadata(), func(s *proxy.Shape) { s.Suit(proxy.Node("shop", "web")) }); !errors.Is(err, proxy.ErrShape) {
		t.Errorf("a virtual node without an application: %v", err)
	}
	for what, spoil := range map[string]func(*proxy.Shape){
		"an application": func(s *proxy.Shape) { s.App = "127.0.0.2" },
		"a way out":      func(s *proxy.Shape) { s.Egress = at("127.0.0.1:15001") },
		"an open one":    func(s *proxy.Shape) { s.EgressOpen = true },
	} {
		s := s
		if spoil(&s); !errors.Is(s.Validate(), proxy.ErrShape) {
			t.Errorf("a gateway with %s is accepted", what)
		}
	}
}

func TestARoomThatIsNoNumberOfConnectionsIsRefused(t *testing.T) {
	for _, v := range []*structpb.Value{
		structpb.NewNumberValue(0), structpb.NewNumberValue(-1), structpb.NewNumberValue(1.5), structpb.NewNumberValue(1 << 40), structpb.NewStringValue("20"), structpb.NewNullValue(),
	} {
		m := aShape.Metadata()
		m.Fields["signet.connections"] = v
		if s, err := proxy.ParseShape(m, nil); !errors.Is(err, proxy.ErrShape) || !strings.Contains(err.Error(), "signet.connections") {
			t.Errorf("%v: %d, %v", v, s.Connections, err)
		}
	}
}

func TestAShapeTravelsAsNodeMetadata(t *testing.T) {
	for _, s := range []proxy.Shape{
		aShape,
		{Bind: "::1", App: "127.0.0.1", Egress: at("[::1]:1"), AuthzSocket: "/a", WayoutSocket: "/w"},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("127.0.0.1:15001"), AuthzSocket: "/a", WayoutSocket: "/w"},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("127.0.0.1:15001"), AuthzSocket: "/a", WayoutSocket: "/w", Answers: true},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("127.0.0.1:15001"), AuthzSocket: "/a", WayoutSocket: "/w", Underscores: true},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("127.0.0.1:15001"), AuthzSocket: "/a", WayoutSocket: "/w", ServiceAddresses: true, Connections: 896},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("127.0.0.1:15001"), AuthzSocket: "/a", WayoutSocket: "/w", Capture: proxy.Capture{Egress: 15001, Ingress: 15000, IPv6: true}},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("127.0.0.2:15001"), AuthzSocket: "/a", WayoutSocket: "/w", Capture: proxy.Capture{Ingress: 15000}},
		{Bind: "192.0.2.7", App: "127.0.0.1", Egress: at("192.0.2.8:15001"), EgressOpen: true, AuthzSocket: "/a", WayoutSocket: "/w"},
		{Bind: "192.0.2.7", App: "unix:/run/web/{port}.sock", Egress: proxy.Egress{Socket: "/run/out/web.sock", Mode: 0o600}, AuthzSocket: "/a", WayoutSocket: "/w"},
	} {
		got, err := proxy.ParseShape(s.Metadata(), nil)
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
		md := proto.CloneOf(aShape.Metadata())
		change(md.GetFields()["signet.shape"].GetStructValue().GetFields())
		if _, err := proxy.ParseShape(md, nil); !errors.Is(err, proxy.ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := proxy.ParseShape(nil, nil); !errors.Is(err, proxy.ErrShape) {
		t.Errorf("no node: %v", err)
	}
}

func TestAShapeWithOnlyAnEgressPortNeverOpensItToOtherHosts(t *testing.T) {
	for bind, want := range map[string]string{
		"192.0.2.7": "127.0.0.1:15001", "2001:db8::7": "127.0.0.1:15001", // not where others reach it
		"127.0.0.9": "127.0.0.9:15001", "::1": "[::1]:15001",
	} {
		for _, egress := range []*structpb.Value{structpb.NewNumberValue(15001), nil} {
			fields := proxy.Shape{Bind: bind, App: "127.0.0.1", AuthzSocket: "/a", WayoutSocket: "/w"}.Metadata().GetFields()
			shape := fields["signet.shape"].GetStructValue().GetFields()
			if delete(shape, "egress"); egress != nil {
				shape["egress"] = egress
			}
			s, err := proxy.ParseShape(&structpb.Struct{Fields: fields}, nil)
			if err != nil || s.Egress.String() != want || s.EgressOpen {
				t.Errorf("bind %s, egress %v: %s, open %v, %v; want %s", bind, egress, s.Egress, s.EgressOpen, err, want)
			}
		}
	}
}

func FuzzParseShape(f *testing.F) {
	good, err := proto.Marshal(aShape.Metadata())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		var st structpb.Struct
		if proto.Unmarshal(b, &st) != nil {
			return
		}
		s, err := proxy.ParseShape(&st, nil)
		if err != nil {
			return
		}
		if again, err := proxy.ParseShape(s.Metadata(), nil); err != nil || again != s {
			t.Errorf("%+v, again %+v %v", s, again, err)
		}
	})
}

func TestACaptureToWhichNothingCouldBeRedirectedIsRefused(t *testing.T) {
	for name, change := range map[string]func(*proxy.Shape){
		"a way out elsewhere":         func(s *proxy.Shape) { s.Capture.Egress = 15001 },
		"another port":                func(s *proxy.Shape) { s.Egress, s.Capture.Egress = at("127.0.0.1:15002"), 15001 },
		"a socket":                    func(s *proxy.Shape) { socket(s, "/run/out.sock", 0o660); s.Capture.Egress = 15001 },
		"both at one port":            func(s *proxy.Shape) { s.Capture.Ingress = 15001 },
		"IPv6 of nothing":             func(s *proxy.Shape) { s.Capture.IPv6 = true },
		"a gateway, with what it has": func(s *proxy.Shape) { s.Alone, s.App, s.Egress, s.Capture.Ingress = true, "", proxy.Egress{}, 15000 },
	} {
		s := aShape
		if change(&s); !errors.Is(s.Validate(), proxy.ErrShape) {
			t.Errorf("%s: not refused", name)
		}
	}
	for name, of := range map[string]map[string]any{
		"an unknown field": {"tproxy": true}, "half a port": {"egress": 1.5}, "port 0": {"ingress": 0}, "port 65536": {"ingress": 65536}, "a port as text": {"egress": "15001"},
	} {
		md := proto.CloneOf(aShape.Metadata())
		fields, err := structpb.NewStruct(of)
		if err != nil {
			t.Fatal(err)
		}
		md.Fields["signet.capture"] = structpb.NewStructValue(fields)
		if _, err := proxy.ParseShape(md, nil); !errors.Is(err, proxy.ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
