package agent

import (
	"strings"
	"testing"

	"signet.example/internal/scrape"
	"signet.example/proxy"
)

func TestMetricsThatOthersReachAreAnExplicitChoice(t *testing.T) {
	for address, open := range map[string]bool{
		"127.0.0.1:9465": false, "[::1]:0": false, "127.9.9.9:1": false, "localhost:1": false, "[::ffff:127.0.0.1]:1": false,
		"0.0.0.0:9465": true, "[::]:1": true, "10.0.0.1:1": true, "node.example:1": true, "[fe80::1%eth0]:1": true,
	} {
		c := Config{Server: "mesh:8443", Metrics: address}
		if err := c.Validate(); err != nil || scrape.Open(c.Metrics) != open {
			t.Errorf("%s: open %v, want %v; %v", address, scrape.Open(c.Metrics), open, err)
		}
	}
	if scrape.Open(DefaultConfig().withDefaults().Metrics) {
		t.Error("they are open by default")
	}
	off := Config{Server: "mesh:8443"}
	if l, err := listenMetrics(t.Context(), off.withDefaults()); l != nil || err != nil || off.Validate() != nil || scrape.Open(off.Metrics) {
		t.Errorf("turned off, they listen: %v, %v, %v", l, err, off.Validate())
	}
	if err := (Config{Server: "mesh:8443", Metrics: ":9465"}).Validate(); err == nil {
		t.Error("all addresses, without a word about it")
	}
}

func TestTheWayOutListensOnLoopbackUnlessItIsOpenedByName(t *testing.T) {
	for name, tc := range map[string]struct {
		proxy Proxy
		at    string // where it listens, if it may
	}{
		"nothing said":                     {Proxy{Bind: "192.0.2.7"}, "127.0.0.1:15001"},
		"a loopback bind":                  {Proxy{Bind: "127.0.0.9"}, "127.0.0.9:15001"},
		"an IPv6 bind":                     {Proxy{Bind: "2001:db8::7"}, "127.0.0.1:15001"},
		"a port":                           {Proxy{Bind: "192.0.2.7", EgressPort: 15002}, "127.0.0.1:15002"},
		"an address":                       {Proxy{Bind: "192.0.2.7", Egress: "127.0.0.5:15003"}, "127.0.0.5:15003"},
		"an IPv6 address":                  {Proxy{Bind: "192.0.2.7", Egress: "[::1]:15003"}, "[::1]:15003"},
		"address and port":                 {Proxy{Bind: "192.0.2.7", Egress: "127.0.0.5:15003", EgressPort: 15003}, ""},
		"a routable address":               {Proxy{Bind: "192.0.2.7", Egress: "192.0.2.7:15001"}, ""},
		"a routable one by name":           {Proxy{Bind: "192.0.2.7", Egress: "192.0.2.7:15001", EgressOpen: true}, "192.0.2.7:15001"},
		"every address":                    {Proxy{Bind: "192.0.2.7", Egress: "0.0.0.0:15001"}, ""},
		"every address by name":            {Proxy{Bind: "192.0.2.7", Egress: "0.0.0.0:15001", EgressOpen: true}, ""},
		"opened, and nothing to open":      {Proxy{Bind: "192.0.2.7", EgressOpen: true}, ""},
		"a Unix socket":                    {Proxy{Bind: "192.0.2.7", Egress: "unix:/run/web/egress.sock"}, "unix:/run/web/egress.sock"},
		"a Unix socket with a mode":        {Proxy{Bind: "192.0.2.7", Egress: "unix:/run/web/egress.sock", EgressMode: "0600"}, "unix:/run/web/egress.sock"},
		"a Unix socket for everybody":      {Proxy{Bind: "192.0.2.7", Egress: "unix:/run/web/egress.sock", EgressMode: "0666"}, ""},
		"a Unix socket, decimal":           {Proxy{Bind: "192.0.2.7", Egress: "unix:/run/web/egress.sock", EgressMode: "432"}, ""},
		"a Unix socket by a relative path": {Proxy{Bind: "192.0.2.7", Egress: "unix:web.sock"}, ""},
		"a Unix socket with a port":        {Proxy{Bind: "192.0.2.7", Egress: "unix:/run/web/egress.sock", EgressPort: 15003}, ""},
		"an open Unix socket":              {Proxy{Bind: "192.0.2.7", Egress: "unix:/run/web/egress.sock", EgressOpen: true}, ""},
		"a mode of an address":             {Proxy{Bind: "192.0.2.7", Egress: "127.0.0.5:15003", EgressMode: "0660"}, ""},
		"a mode of nothing":                {Proxy{Bind: "192.0.2.7", EgressMode: "0660"}, ""},
		"no port":                          {Proxy{Bind: "192.0.2.7", Egress: "127.0.0.1"}, ""},
		"port 0":                           {Proxy{Bind: "192.0.2.7", Egress: "127.0.0.1:0"}, ""},
		"a name":                           {Proxy{Bind: "192.0.2.7", Egress: "localhost:15001"}, ""},
		"loopback in the form of IPv6":     {Proxy{Bind: "192.0.2.7", Egress: "[::ffff:127.0.0.1]:15001"}, ""},
		"a routable one in such a form":    {Proxy{Bind: "192.0.2.7", Egress: "[::ffff:192.0.2.7]:15001"}, ""},
		"a port beyond what a port is":     {Proxy{Bind: "192.0.2.7", EgressPort: 70000}, ""},
		"a port that wraps to a good one":  {Proxy{Bind: "192.0.2.7", EgressPort: 65536 + 15001}, ""},
	} {
		tc.proxy.Name, tc.proxy.Mesh, tc.proxy.VirtualNode = "web", "shop", "web"
		c := Config{Server: "mesh:8443", Proxies: []Proxy{tc.proxy}}
		err := c.Validate()
		if (err == nil) != (tc.at != "") || err != nil && !strings.HasPrefix(err.Error(), "proxies[0].egress") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if at, _ := c.withDefaults().Proxies[0].egress(); err == nil && at.String() != tc.at {
			t.Errorf("%s: at %s, want %s", name, at, tc.at)
		}
	}
}

func TestTwoProxiesWithOneWayOutAreRefusedByName(t *testing.T) {
	c := Config{Server: "mesh:8443", Proxies: []Proxy{
		{Name: "web", Mesh: "shop", VirtualNode: "web", Bind: "192.0.2.7"},
		{Name: "orders", Mesh: "shop", VirtualNode: "orders", Bind: "192.0.2.8"},
	}}
	err := c.Validate()
	for _, want := range []string{"proxies[1].egress", `"web"`, `"orders"`, "127.0.0.1:15001"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	c.Proxies[1].Egress = "127.0.0.2:15001"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestAccessLogsGoToAFolderOfTheOperatorsOwn(t *testing.T) {
	for dir, ok := range map[string]bool{
		"": true, "/var/log/mesh": true, "/srv/logs/a": true,
		"/": false, "logs": false, "/var/log/../log": false, "/var/log/": false, "/dev": false, "/dev/shm": false, "/proc/self": false, "/sys": false, "/a\tb": false,
	} {
		err := Config{Server: "mesh:8443", AccessLogDir: dir}.Validate()
		if (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), "access_log_dir") {
			t.Errorf("%q: %v", dir, err)
		}
	}
}

func TestTwoProxiesOfOneNodeOnOneAddressAreRefused(t *testing.T) {
	c := goodConfig()
	second := c.Proxies[0]
	second.Name, second.Egress = "again", "127.0.0.9:15001"
	c.Proxies = append(c.Proxies, second)
	if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), "proxies[1].bind: ") || !strings.Contains(err.Error(), `"web" and "again"`) {
		t.Errorf("%v", err)
	}
	c.Proxies[1].VirtualNode = "orders" // its ports may be others: known when the server has told them
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestWhereAnAppMeshEnvoyIsIsSaidForAHostAlone(t *testing.T) {
	good := proxy.Where{Bind: "192.0.2.7", App: "127.0.0.2", Egress: "127.0.0.2:15001"}
	if err := (Config{Server: "mesh:8443", AppMesh: good}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{Server: "mesh:8443", AppMesh: proxy.Where{App: "localhost"}}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "app_mesh: app: want an IP address") {
		t.Error(err)
	}
	if err := (Config{Mode: ModeTask, Server: "mesh:8443", AppMesh: good}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "app_mesh: is for mode: host") {
		t.Errorf("in a task: %v", err)
	}
}

func TestServiceAddressesAreOfAnApplicationWhoseWayOutIsAnAddress(t *testing.T) {
	for what, c := range map[string]struct {
		p     Proxy
		field string
	}{
		"an address": {Proxy{VirtualNode: "web"}, ""},
		"a socket":   {Proxy{VirtualNode: "web", Egress: "unix:/run/web-out/egress.sock"}, "proxies[0].service_addresses: egress is unix:/run/web-out/egress.sock"},
		"a gateway":  {Proxy{VirtualGateway: "edge"}, "proxies[0].service_addresses: is of a virtual node"},
	} {
		c.p.Name, c.p.Mesh, c.p.Bind, c.p.ServiceAddresses = "web", "shop", "192.0.2.7", true
		err := Config{Server: "mesh:8443", Proxies: []Proxy{c.p}}.Validate()
		if (err == nil) != (c.field == "") || err != nil && !strings.HasPrefix(err.Error(), c.field) {
			t.Errorf("%s: %v, want %q", what, err, c.field)
		}
		if err == nil && !c.p.shape(proxy.Shape{}).ServiceAddresses {
			t.Errorf("%s: its shape does not have them", what)
		}
	}
}
