package proxy_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/proxy"
)

// interfaces is the metadata of a task with these addresses, as App Mesh's agent writes it.
func interfaces(t *testing.T, v4, v6 map[string]any) *structpb.Struct {
	t.Helper()
	m, err := structpb.NewStruct(map[string]any{
		"aws.appmesh.platformInfo":    map[string]any{},
		"aws.appmesh.task.interfaces": map[string]any{"ipv4": v4, "ipv6": v6},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type of = map[string]any

func ips(addresses ...any) []any { return addresses }

func TestTheAddressOfAnAppMeshEnvoyIsTheOneThatItsTaskHas(t *testing.T) {
	for name, row := range map[string]struct{ v4, v6 of }{
		"192.0.2.7":   {v4: of{"eth0": ips("192.0.2.7/24")}, v6: of{"eth0": ips("2001:db8::7/64")}},
		"192.0.2.8":   {v4: of{"eth0": ips("169.254.172.2/22"), "eth1": ips("192.0.2.8/24"), "lo": ips("127.0.0.1/8")}},
		"2001:db8::7": {v4: of{"eth0": ips("169.254.172.2/22")}, v6: of{"eth1": ips("fe80::1/64", "2001:db8::7/64")}},
	} {
		s, err := proxy.Where{}.Shape(interfaces(t, row.v4, row.v6))
		if err != nil || s.Bind != name || s.App != "127.0.0.1" || s.Egress.String() != "127.0.0.1:15001" {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for want, row := range map[string]struct{ v4, v6 of }{
		"it names no address":                         {},
		"several addresses, 192.0.2.7, 192.0.2.8":     {v4: of{"eth0": ips("192.0.2.7/24"), "eth1": ips("192.0.2.8/24")}},
		`"x" of "eth0" is not an address`:             {v4: of{"eth0": ips("x")}},
		"app_mesh.bind in the file of Signet's agent": {v4: of{"lo": ips("127.0.0.1/8")}},
	} {
		if s, err := (proxy.Where{}).Shape(interfaces(t, row.v4, row.v6)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %+v, %v", want, s, err)
		}
	}
	said := proxy.Where{Bind: "192.0.2.9", App: "127.0.0.2", Egress: "127.0.0.1:15009"}
	if s, err := said.Shape(interfaces(t, of{"eth0": ips("192.0.2.7/24", "192.0.2.8/24")}, nil)); err != nil || s.Bind != "192.0.2.9" || s.App != "127.0.0.2" || s.Egress.String() != "127.0.0.1:15009" {
		t.Errorf("what the operator says: %+v, %v", s, err)
	}
}

func TestAnAppMeshEnvoyIsKnownByItsMetadata(t *testing.T) {
	if !proxy.OfAppMesh(interfaces(t, nil, nil)) {
		t.Error("its metadata is not known")
	}
	own := interfaces(t, nil, nil)
	own.Fields[proxy.ShapeKey] = structpb.NewStructValue(&structpb.Struct{})
	for name, m := range map[string]*structpb.Struct{"none": nil, "another's": {Fields: map[string]*structpb.Value{"role": structpb.NewStringValue("x")}}, "one with a shape": own} {
		if proxy.OfAppMesh(m) {
			t.Errorf("%s is taken for it", name)
		}
	}
}

func TestAPlaceWhereNoAppMeshEnvoyCouldBeIsRefused(t *testing.T) {
	for _, a := range []proxy.Where{{}, {App: "127.0.0.2"}, {Bind: "192.0.2.7", Egress: "unix:/run/out/egress.sock", EgressMode: "0600"}} {
		if err := a.Validate(); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
	}
	for want, a := range map[string]proxy.Where{
		"bind: want an IP address":            {Bind: "eth0"},
		"app: 192.0.2.7 is bind, too":         {Bind: "192.0.2.7", App: "192.0.2.7"},
		"app: want an IP address":             {App: "localhost"},
		"egress: 192.0.2.7:15001 is not":      {Egress: "192.0.2.7:15001"},
		"egress: want an IP address with its": {EgressMode: "0600"},
	} {
		if err := a.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", a, err, want)
		}
	}
}
