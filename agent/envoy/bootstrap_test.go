package envoy

import (
	"encoding/json"
	"strings"
	"testing"

	"signet.example/internal/openfiles"
	"signet.example/proxy"
)

// The admin interface can do everything with a proxy, and asks nobody who he is.
func TestAProxysAdminInterfaceIsTheAgentsAlone(t *testing.T) {
	text, err := bootstrap(Proxy{Name: "web", Ref: proxy.Node("shop", "web"), Admin: "/run/x/web.sock"}, "/run/x/xds.sock", 0o600, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		Admin struct {
			Address struct {
				Pipe struct {
					Path string
					Mode uint32
				}
			}
		}
	}
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	if p := b.Admin.Address.Pipe; p.Path != "/run/x/web.sock" || p.Mode != 0o600 {
		t.Errorf("%+v", p)
	}
}

func TestAProxysWayOutNeverHasTheFilesOfWhatComesIn(t *testing.T) {
	for _, files := range []uint64{64, 256, 1024, 4096, 20000, 1 << 20} {
		in, out := mostConnections(files)
		if 2*(in+out) > int64(files) || out > in || out < 1 { //nolint:gosec // a few
			t.Errorf("of %d files: %d connections at the ways in, %d at the way out", files, in, out)
		}
	}
	text, err := bootstrap(Proxy{Name: "web", Ref: proxy.Node("shop", "web"), Shape: proxy.Shape{Egress: proxy.EgressPort("127.0.0.2", 15001)}}, "/run/x/xds.sock", 0o600, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"envoy.resource_limits.listener.lds_egress_127.0.0.2_15001.connection_limit"`) {
		t.Errorf("%s", text)
	}
}

func TestAShapeHasTheRoomOfTheWaysInWhereFilesAreFew(t *testing.T) {
	_, files := openfiles.Limit()
	in, _ := mostConnections(files)
	if got := Connections(); got != 0 && int64(got) != in || got == 0 && in != proxy.DefaultConnections {
		t.Errorf("%d connections, of %d at the ways in", got, in)
	}
}
