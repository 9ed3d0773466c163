package agent

import (
	"strings"
	"testing"

	"signet.example/proxy"
)

func TestWhatIsRedirectedComesToTheWayOutThatIsThere(t *testing.T) {
	for name, tc := range map[string]struct {
		proxy Proxy
		at    string // "" where it is refused
	}{
		"App Mesh's ports":        {Proxy{Capture: proxy.Capture{Egress: 15001, Ingress: 15000}}, "127.0.0.1:15001"},
		"a port of its own":       {Proxy{Capture: proxy.Capture{Egress: 15011}}, "127.0.0.1:15011"},
		"what comes in alone":     {Proxy{Egress: "127.0.0.3:15001", Capture: proxy.Capture{Ingress: 15000}}, "127.0.0.3:15001"},
		"another way out":         {Proxy{Egress: "127.0.0.3:15001", Capture: proxy.Capture{Egress: 15001}}, ""},
		"another port":            {Proxy{EgressPort: 15002, Capture: proxy.Capture{Egress: 15001}}, ""},
		"a socket":                {Proxy{Egress: "unix:/run/out/web.sock", Capture: proxy.Capture{Egress: 15001}}, ""},
		"one port for both":       {Proxy{Capture: proxy.Capture{Egress: 15001, Ingress: 15001}}, ""},
		"a gateway, which has no": {Proxy{VirtualGateway: "edge", Capture: proxy.Capture{Ingress: 15000}}, ""},
	} {
		tc.proxy.Name, tc.proxy.Mesh, tc.proxy.Bind = "web", "shop", "192.0.2.7"
		if tc.proxy.VirtualGateway == "" {
			tc.proxy.VirtualNode = "web"
		}
		c := Config{Server: "mesh:8443", Proxies: []Proxy{tc.proxy}}
		err := c.Validate()
		if (err == nil) != (tc.at != "") || err != nil && !strings.HasPrefix(err.Error(), "proxies[0].capture") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if at, _ := c.withDefaults().Proxies[0].egress(); err == nil && at.String() != tc.at {
			t.Errorf("%s: at %s, want %s", name, at, tc.at)
		}
	}
}
