package agent

import (
	"net"
	"strings"
	"testing"
	"time"

	"signet.example/internal/manifest"
)

func read(t *testing.T, environ ...string) (Config, error) {
	t.Helper()
	c := Config{Mode: ModeTask}
	said, err := FromEnvironment(append(environ, "PATH=/bin", "SIGNET_TOKEN=a-secret", "HOME=/"))
	if err != nil {
		return c, err
	}
	s, err := manifest.ReadSettings("the environment", said.File, &c)
	if err == nil {
		err = s.Check(nil)
	}
	return c, err
}

func TestATaskIsConfiguredByItsEnvironment(t *testing.T) {
	c, err := read(t, "SIGNET_SERVER=mesh:8443", "SIGNET_DRAIN_TIME=3s", "SIGNET_AUTHZ_MEMORY_LIMIT=64", "SIGNET_JOIN_X509POP_CERTIFICATE=/a", "SIGNET_JOIN_X509POP_KEY=/b",
		"SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_VIRTUAL_NODE=7", "SIGNET_PROXY_CONCURRENCY=1", "SIGNET_PROXY_EGRESS_OPEN=true", "SIGNET_PROXY_USER=1337", "SIGNET_METRICS=")
	if err != nil {
		t.Fatal(err)
	}
	p := c.withDefaults().Proxies[0]
	if c.Server != "mesh:8443" || c.DrainTime != 3*time.Second || c.Authz.MemoryLimit != 64 || c.Join.X509PoP.Certificate != "/a" || c.Join.X509PoP.Key != "/b" || c.ProxyUser != "1337" {
		t.Errorf("%+v", c)
	}
	if p.Name != "7" || p.Mesh != "shop" || p.VirtualNode != "7" || p.Concurrency != 1 || !p.EgressOpen || p.User != "1337" {
		t.Errorf("%+v", p)
	}
	if c, err := read(t); err != nil || len(c.Proxies) != 0 {
		t.Errorf("nothing said: %+v, %v", c, err)
	}
}

func TestWhatIsWrongInAnEnvironmentIsRefusedByName(t *testing.T) {
	for one, want := range map[string]string{
		"SIGNET_PROXY_NODE=web":          "SIGNET_PROXY_NODE: no such variable",
		"SIGNET_MODE=host":               "SIGNET_MODE: no such variable",
		"SIGNET_SERVR=mesh:8443":         "SIGNET_SERVR: no such variable; did you mean SIGNET_SERVER?",
		"SIGNET_DRAIN_TIME=soon":         "drain_time",
		"SIGNET_PROXY_CONCURRENCY=many":  `SIGNET_PROXY_CONCURRENCY: want a number, got "many"`,
		"SIGNET_PROXY_CONCURRENCY=\"1\"": "SIGNET_PROXY_CONCURRENCY: want a number",
		"SIGNET_PROXY_CONCURRENCY=1.5":   "proxies[0].concurrency",
		"SIGNET_PROXY_EGRESS_OPEN=yes":   `SIGNET_PROXY_EGRESS_OPEN: want true or false, got "yes"`,
		"ENVOY_CONCURRENCY=many":         `ENVOY_CONCURRENCY: want a number, got "many"`,
		"ENVOY_ADMIN_ACCESS_PORT=admin":  `ENVOY_ADMIN_ACCESS_PORT: want a port, 1 to 65535, got "admin"`,
	} {
		if _, err := read(t, one); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", one, err, want)
		}
	}
}

func TestATasksTimesFitIntoWhatItHasToStop(t *testing.T) {
	base := Config{Mode: ModeTask, Server: "mesh:8443"}
	if c := base.withDefaults(); c.StopTimeout != 30*time.Second || c.DrainRequests != 13*time.Second || c.outlive() != 23*time.Second || c.KillAfter() != 29*time.Second || base.Validate() != nil {
		t.Errorf("%+v, %v", c, base.Validate())
	}
	long := base
	long.StopTimeout = 2 * time.Minute
	if c := long.withDefaults(); c.DrainRequests != defaultRequests || long.Validate() != nil {
		t.Errorf("%+v, %v", c, long.Validate())
	}
	short := base
	short.DrainRequests = 14 * time.Second
	if err := short.Validate(); err == nil || !strings.Contains(err.Error(), "stop_timeout: 30s is less than the 31s") {
		t.Errorf("%v", err)
	}
	host := Config{Server: "mesh:8443", StopTimeout: time.Minute}
	if err := host.Validate(); err == nil || !strings.Contains(err.Error(), "stop_timeout: is for mode: task") {
		t.Errorf("%v", err)
	}
}

func TestNamesOfAppMeshsEnvironmentAreObeyedOrRefused(t *testing.T) {
	for environ, want := range map[string]Proxy{
		"APPMESH_RESOURCE_ARN=arn:aws:appmesh:eu-west-1:123456789012:mesh/shop/virtualNode/web ENVOY_CONCURRENCY=3":                                          {Mesh: "shop", VirtualNode: "web", Concurrency: 3},
		"APPMESH_VIRTUAL_NODE_NAME=mesh/shop/virtualNode/web":                                                                                                {Mesh: "shop", VirtualNode: "web"},
		"APPMESH_RESOURCE_NAME=mesh/shop/virtualGateway/edge":                                                                                                {Mesh: "shop", VirtualGateway: "edge"},
		"APPMESH_RESOURCE_ARN=arn:aws:appmesh:eu-west-1:1:mesh/shop/virtualNode/web APPMESH_VIRTUAL_NODE_NAME=mesh/shop/virtualNode/web":                     {Mesh: "shop", VirtualNode: "web"},
		"APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/a APPMESH_VIRTUAL_NODE_NAME=mesh/shop/virtualNode/b SIGNET_PROXY_VIRTUAL_NODE=web SIGNET_PROXY_MESH=new": {Mesh: "new", VirtualNode: "web"},
		"APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web SIGNET_PROXY_VIRTUAL_NODE=web2 SIGNET_PROXY_MESH=new":                                                {Mesh: "new", VirtualNode: "web2"},
	} {
		c, err := read(t, strings.Fields(environ)...)
		if err != nil || len(c.Proxies) != 1 || c.Proxies[0].Mesh != want.Mesh || c.Proxies[0].VirtualNode != want.VirtualNode ||
			c.Proxies[0].VirtualGateway != want.VirtualGateway || c.Proxies[0].Concurrency != want.Concurrency {
			t.Errorf("%s: %+v, %v", environ, c.Proxies, err)
		}
	}
	for environ, want := range map[string]string{
		"APPMESH_RESOURCE_ARN=arn:aws:appmesh:eu-west-1:123456789012:mesh/shop": `APPMESH_RESOURCE_ARN: node id "arn:aws:appmesh:eu-west-1:123456789012:mesh/shop": want mesh/<mesh>/virtualNode/<node>`,
		"APPMESH_RESOURCE_ARN=mesh/shop/virtualRouter/r":                        "virtualRouter is not served, virtualNode and virtualGateway are",
		"APPMESH_XDS_ENDPOINT=unix:///x.sock":                                   "APPMESH_XDS_ENDPOINT: routes come from Signet's server: SIGNET_SERVER",
		"ENABLE_ENVOY_XRAY_TRACING=1":                                           "ENABLE_ENVOY_XRAY_TRACING: this version has nothing like it",
		"ENVOY_ADMIN_MODE=tcp":                                                  "ENVOY_ADMIN_MODE: Envoy's admin interface",
		"ENVOY_LOG_LEVEL=debug":                                                 "ENVOY_LOG_LEVEL: Envoy logs warnings",
	} {
		if _, err := read(t, environ); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", environ, err, want)
		}
	}
	// A9-50: the one of them that came last was obeyed.
	for _, other := range []string{"shop/virtualNode/orders", "new/virtualNode/web", "shop/virtualGateway/web"} {
		_, err := read(t, "APPMESH_VIRTUAL_NODE_NAME=mesh/shop/virtualNode/web", "APPMESH_RESOURCE_ARN=arn:aws:appmesh:eu-west-1:1:mesh/"+other)
		if err == nil || !strings.Contains(err.Error(), "APPMESH_VIRTUAL_NODE_NAME and APPMESH_RESOURCE_ARN name two proxies") {
			t.Errorf("%s: %v", other, err)
		}
	}
}

// A9-48: in a namespace with a service named signet, or envoy, no task started.
func TestWhatKubernetesSaysOfServicesIsNoKey(t *testing.T) {
	var links []string
	for service, host := range map[string]string{
		"SIGNET": "10.0.0.1", "SIGNET_SERVER": "10.0.0.2", "SIGNET_PROXY_EGRESS": "fd00::3", "ENVOY": "10.0.0.4", "ENVOY_ADMIN": "10.0.0.5", "APPMESH_METRIC": "10.0.0.6", "APPNET_AGENT": "10.0.0.7",
	} {
		at := net.JoinHostPort(host, "8443")
		links = append(links, service+"_SERVICE_HOST="+host, service+"_SERVICE_PORT=8443", service+"_SERVICE_PORT_AGENTS=8443", service+"_PORT=tcp://"+at,
			service+"_PORT_8443_TCP=tcp://"+at, service+"_PORT_8443_TCP_PROTO=tcp", service+"_PORT_8443_TCP_PORT=8443", service+"_PORT_8443_TCP_ADDR="+host)
	}
	c, err := read(t, append(links, "SIGNET_SERVER=signet:8443", "SIGNET_PROXY_MESH=shop", "SIGNET_PROXY_VIRTUAL_NODE=web")...)
	if err != nil || c.Server != "signet:8443" || len(c.Proxies) != 1 || c.Proxies[0].EgressPort != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, one := range []string{"SIGNET_PORT=8443", "SIGNET_OTHER_PORT=tcp://10.0.0.1:8443", "ENVOY_PORT=8443"} {
		name, _, _ := strings.Cut(one, "=")
		if _, err := read(t, append(links, one)...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", one, err)
		}
	}
}
