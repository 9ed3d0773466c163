package envoy

import (
	"encoding/json"
	"testing"

	"signet.example/proxy"
)

// The admin interface can do everything with a proxy, and asks nobody who he is.
func TestAProxysAdminInterfaceIsTheAgentsAlone(t *testing.T) {
	text, err := bootstrap(Proxy{Name: "web", Ref: proxy.Node("shop", "web"), Admin: "/run/x/web.sock"}, "/run/x/xds.sock", 0o600)
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
