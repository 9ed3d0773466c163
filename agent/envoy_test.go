package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"signet.example/ads"
	"signet.example/agent"
	"signet.example/api"
	"signet.example/test/parts"
)

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// listener answers every request itself, over mutual TLS by the proxy's secrets.
func listener(t testing.TB, address string, port uint32, answer string) *listenerv3.Listener {
	t.Helper()
	overADS := &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: "in",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
					Status: 200, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: answer}},
				}},
			}}}},
		}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(t, &routerv3.Router{})}}},
	}
	tlsContext := &tlsv3.DownstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "spiffe://test.example/shop/web", SdsConfig: overADS}},
		},
	}
	return &listenerv3.Listener{
		Name: fmt.Sprintf("lds_ingress_%s_%d", address, port),
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
		FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, manager)}}},
			TransportSocket: &corev3.TransportSocket{
				Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, tlsContext)},
			},
		}},
	}
}

var addresses atomic.Int32

// ownAddress is one that no other test listens at: only one proxy of a host may.
func ownAddress() string {
	return fmt.Sprintf("127.%d.%d.%d", 100+os.Getpid()%100, os.Getpid()/100%250, 9+addresses.Add(1)%200)
}

// freePort is a port that is free on the address now.
func freePort(t testing.TB, address string) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// envoyRig is an agent with one supervised Envoy that is not yet routed.
type envoyRig struct {
	*rig
	address string
	port    uint32
}

func newEnvoyRig(t *testing.T, lifetime time.Duration) *envoyRig {
	t.Helper()
	return newEnvoyRigOf(t, lifetime, parts.Envoy(t), "signet:proxy:web")
}

// newEnvoyRigOf runs another program as Envoy, with a binding that asks for these.
func newEnvoyRigOf(t *testing.T, lifetime time.Duration, program string, selectors ...string) *envoyRig {
	t.Helper()
	e := &envoyRig{address: ownAddress()}
	e.port = freePort(t, e.address)
	e.rig = newRig(t, func(f *fakeServer) {
		f.lifetime = lifetime
		f.entries = []*api.Entry{binding("web", "web", selectors...)}
	}, func(c *agent.Config) {
		c.Envoy = program
		c.Proxies = []agent.Proxy{{Name: "web", Mesh: "shop", VirtualNode: "web", Bind: e.address, Concurrency: 1, User: strconv.Itoa(os.Getuid())}}
	})
	return e
}

func (e *envoyRig) route(answer string) {
	l := listener(e.t, e.address, e.port, answer)
	e.fakeServer.route(webNode, "", e.resource(ads.ListenerType, l.GetName(), l))
}

func (e *envoyRig) proxy() *api.ProxyStatus {
	for _, p := range e.lastReport().GetProxies() {
		return p
	}
	return &api.ProxyStatus{}
}

// get calls the proxy and returns its answer and its certificate's serial.
func (e *envoyRig) get() (body, serial string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // only looked at
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s:%d/", e.address, e.port), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", ""
	}
	b, err := io.ReadAll(resp.Body)
	if errors.Join(err, resp.Body.Close()) != nil {
		return "", ""
	}
	return string(b), resp.TLS.PeerCertificates[0].SerialNumber.Text(16)
}

func TestASupervisedEnvoyServesRotatesIsRestartedAndDrained(t *testing.T) {
	t.Parallel()
	e := newEnvoyRig(t, 6*time.Second)
	e.await("the proxy's status", func() bool { return e.proxy().GetState() == api.ProxyStatus_WAITING })
	time.Sleep(200 * time.Millisecond)
	if p := e.proxy(); p.GetPid() != 0 {
		t.Error("Envoy was started without routing")
	}
	e.route("hello")
	e.await("ready", func() bool { return e.proxy().GetState() == api.ProxyStatus_READY })
	body, first := e.get()
	if body != "hello" {
		t.Errorf("answer %q", body)
	}
	p := e.proxy()
	if p.GetAddress() != e.address || len(p.GetPorts()) != 1 || p.GetPorts()[0] != e.port || p.GetEnvoyVersion() == "" || !p.GetHealthy() {
		t.Errorf("reported as %v", p)
	}
	e.await("the view by Envoy's version", func() bool { // by which refusals of several versions are told apart
		views := e.lastReport().GetViews()
		return len(views) == 1 && views[0].GetEnvoyVersion() == p.GetEnvoyVersion()
	})
	info, err := os.Stat(filepath.Join(e.dir, "proxies", "web", "admin.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v %v", info, err)
	}
	e.await("another certificate", func() bool { _, serial := e.get(); return serial != first && serial != "" })
	e.await("the certificate read back", func() bool { return e.metric(`signet_agent_served_fingerprint_match{proxy="web"}`) == "1" })

	// A new one comes from memory, with the server gone.
	e.stop()
	if err := syscall.Kill(int(p.GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	e.await("the next Envoy", func() bool { body, _ := e.get(); return body == "hello" })
	t.Logf("a killed Envoy serves again after %s, without a server", time.Since(begun))
	e.start()
	e.await("the report", func() bool { return e.proxy().GetRestarts() == 1 && e.proxy().GetState() == api.ProxyStatus_READY })

	pid := int(e.proxy().GetPid())
	e.cancel()
	e.await("the report of draining", func() bool { return e.proxy().GetState() == api.ProxyStatus_DRAINING })
	e.await("the end of Envoy", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

// A program that starts another one, as scripts do, is not what will be attested; and
// what will be is known when it is. The proxy waits as long as no binding is for it.
func TestASupervisedEnvoyIsKnownByWhatItsProcessIsAndNotByWhatWasForeseen(t *testing.T) {
	t.Parallel()
	real, err := filepath.EvalSymlinks(parts.Envoy(t))
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+real+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	asks := func(path string) []string { return []string{"signet:proxy:web", "unix:path:" + path} }
	e := newEnvoyRigOf(t, time.Hour, script, asks(real)...)
	e.route("hello")
	e.await("ready", func() bool { return e.proxy().GetState() == api.ProxyStatus_READY })
	if body, _ := e.get(); body != "hello" {
		t.Errorf("got %q", body)
	}
	e.change(func(f *fakeServer) {
		f.entries = []*api.Entry{binding("of-another", "web", asks("/usr/bin/another")...)}
	})
	e.await("the reason", func() bool {
		p := e.proxy()
		return p.GetState() == api.ProxyStatus_WAITING && strings.Contains(p.GetReason(), "no binding lets proxy web") && strings.Contains(p.GetReason(), "unix:path:"+real) &&
			strings.Contains(p.GetReason(), "binding of-another asks for unix:path:/usr/bin/another, which it has not")
	})
	if body, _ := e.get(); body != "" {
		t.Errorf("it is served %q", body)
	}
	e.change(func(f *fakeServer) { f.entries = []*api.Entry{binding("again", "web", asks(real)...)} })
	e.await("ready again", func() bool { return e.proxy().GetState() == api.ProxyStatus_READY })
}

// Whoever upgrades does it by replacing the file: the proxy goes on, and is another one from its
// next start on. Where no server is there then, it goes on by what the agent has.
func TestASupervisedEnvoyIsOfTheVersionThatItsProgramHasWhenItStarts(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "envoy")
	install := func(version string) {
		t.Helper()
		script := "#!/bin/sh\n[ \"$1\" = --version ] && echo 'envoy  version: abc/" + version + "/Clean/RELEASE/BoringSSL' && exit\nexec " + parts.Envoy(t) + " \"$@\"\n"
		if err := errors.Join(os.WriteFile(program+".new", []byte(script), 0o700), os.Rename(program+".new", program)); err != nil {
			t.Fatal(err)
		}
	}
	install("1.37.0")
	e := newEnvoyRigOf(t, time.Hour, program, "signet:proxy:web")
	e.route("hello")
	e.await("the refusal of an old one", func() bool {
		return e.proxy().GetState() == api.ProxyStatus_WAITING && strings.HasSuffix(e.proxy().GetReason(), "envoy: at least 1.38 is needed, this is 1.37.0")
	})
	follows := func(version string) {
		t.Helper()
		e.await("a proxy of "+version, func() bool {
			for _, v := range e.lastReport().GetViews() {
				if v.GetEnvoyVersion() == version {
					body, _ := e.get()
					return body == "hello" && e.proxy().GetState() == api.ProxyStatus_READY
				}
			}
			return false
		})
	}
	restarts := func() {
		t.Helper()
		if err := syscall.Kill(int(e.proxy().GetPid()), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	install("1.39.1")
	follows("1.39.1")
	install("1.40.7")
	restarts()
	follows("1.40.7")

	install("1.41.0")
	e.stop()
	e.await("that the agent is alone", func() bool { return e.metric("signet_agent_upstream_connected") == "0" })
	restarts()
	e.await("the next Envoy, without a server", func() bool { body, _ := e.get(); return body == "hello" })
	e.start()
	e.await("that it is as it was", func() bool { return e.proxy().GetRestarts() == 2 && e.proxy().GetState() == api.ProxyStatus_READY })
	follows("1.40.7")
	restarts()
	follows("1.41.0")
}

func TestASupervisedEnvoyEndsWithItsBindingAndComesBackWithTheNext(t *testing.T) {
	t.Parallel()
	e := newEnvoyRig(t, time.Hour)
	e.route("hello")
	e.await("ready", func() bool { return e.proxy().GetState() == api.ProxyStatus_READY })
	pid := int(e.proxy().GetPid())
	e.change(func(f *fakeServer) { f.entries = nil })
	e.await("the end of Envoy", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	e.await("the report that it waits", func() bool { return e.proxy().GetState() == api.ProxyStatus_WAITING && len(e.proxy().GetPorts()) == 0 })
	e.change(func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", "signet:proxy:web")} })
	e.await("ready again", func() bool {
		p := e.proxy()
		return p.GetState() == api.ProxyStatus_READY && len(p.GetPorts()) == 1 && p.GetRestarts() == 0
	})
	if body, _ := e.get(); body != "hello" {
		t.Errorf("answer %q", body)
	}
}

func TestARejectedResourceIsReportedAndTheLastGoodStays(t *testing.T) {
	t.Parallel()
	e := newEnvoyRig(t, time.Hour)
	e.route("good")
	e.await("ready, with all that it is to have", func() bool {
		p := e.proxy()
		return p.GetState() == api.ProxyStatus_READY && p.GetConfig() == api.ProxyStatus_SYNCED && p.GetConfigVersion() != "" && p.GetAcknowledged() != nil &&
			len(p.GetTypes()) > 0 && !slices.ContainsFunc(p.GetTypes(), func(s *api.TypeStatus) bool { return s.GetVersion() == "" || s.GetVersion() != s.GetAcknowledged() })
	})
	bad := listener(t, e.address, e.port, "bad")
	bad.FilterChains[0].Filters[0].Name = "no such filter"
	bad.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/no.such.Type"}}
	e.fakeServer.route(webNode, "", e.resource(ads.ListenerType, bad.GetName(), bad))
	e.await("the rejection", func() bool {
		r := e.proxy().GetRejected()
		return len(r) == 1 && e.proxy().GetConfig() == api.ProxyStatus_REJECTED && r[0].GetTypeUrl() == ads.ListenerType && strings.Contains(r[0].GetMessage(), "no.such.Type")
	})
	if body, _ := e.get(); body != "good" {
		t.Errorf("the proxy answers %q", body)
	}
	views, sent := e.lastReport().GetViews(), e.nodes[webNode].Set().Type(ads.ViewType)[0].Version
	if len(views) != 1 || views[0].GetVersion() != sent || views[0].GetProxies() != 1 || !proto.Equal(views[0].GetRejected()[0], e.proxy().GetRejected()[0]) {
		t.Errorf("of what the server sent, %s, it is told %v", sent, views)
	}
}

// twoProxies is an agent with two proxies, web and orders, of one address.
func twoProxies(t *testing.T, address string) *rig {
	t.Helper()
	program := parts.Envoy(t)
	user := strconv.Itoa(os.Getuid())
	return newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", "signet:proxy:web"), binding("orders", "orders", "signet:proxy:orders")}
	}, func(c *agent.Config) {
		c.Envoy = program
		c.Proxies = []agent.Proxy{
			{Name: "web", Mesh: "shop", VirtualNode: "web", Bind: address, Concurrency: 1, User: user},
			{Name: "orders", Mesh: "shop", VirtualNode: "orders", Bind: address, Egress: address + ":15002", Concurrency: 1, User: user},
		}
	})
}

func TestAProxyThatWaitsForAnAddressSaysSoOnce(t *testing.T) {
	t.Parallel()
	address := ownAddress()
	r := twoProxies(t, address)
	l := listener(t, address, freePort(t, address), "hello")
	for _, node := range []string{"web", "orders"} {
		r.route("mesh/shop/virtualNode/"+node, "", r.resource(ads.ListenerType, l.GetName(), l))
	}
	told := func() int { return strings.Count(r.log.String(), "its address is taken") }
	r.await("that one waits", func() bool { return told() > 0 })
	time.Sleep(2500 * time.Millisecond) // it looks each second
	if n := told(); n != 1 {
		t.Errorf("told %d times", n)
	}
	own := r.lastReport().GetOwn()
	if i := slices.IndexFunc(own, func(f *api.AgentFinding) bool { return f.GetProxy() != "" }); i < 0 || !strings.HasPrefix(own[i].GetText(), "proxy "+own[i].GetProxy()+" waits: ") {
		t.Errorf("the server is told: %v", own)
	}
}

// Envoys share an address and port that two of them are told of.
func TestAListenerOfALaterApplyTakesNoCallsOfAnotherProxy(t *testing.T) {
	t.Parallel()
	address := ownAddress()
	r := twoProxies(t, address)
	plain := func(port uint32, answer string) *ads.Resource {
		l := listener(t, address, port, answer)
		l.FilterChains[0].TransportSocket = nil
		return r.resource(ads.ListenerType, l.GetName(), l)
	}
	webPort, ordersPort := freePort(t, address), freePort(t, address)
	r.route("mesh/shop/virtualNode/web", "", plain(webPort, "web"))
	r.route("mesh/shop/virtualNode/orders", "", plain(ordersPort, "orders"))
	r.await("both", func() bool {
		all := r.lastReport().GetProxies()
		return len(all) == 2 && all[0].GetState() == api.ProxyStatus_READY && all[1].GetState() == api.ProxyStatus_READY
	})
	r.route("mesh/shop/virtualNode/orders", "", plain(ordersPort, "orders again"), plain(webPort, "orders"))
	const want = "proxy-address: proxy orders runs without listener lds_ingress_"
	r.await("the finding", func() bool { return strings.Contains(strings.Join(r.lastReport().GetFindings(), "\n"), want) })
	call := func(port uint32) string {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s:%d/", address, port), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err.Error()
		}
		b, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err.Error()
		}
		return string(b)
	}
	r.await("the rest of the change", func() bool { return call(ordersPort) == "orders again" })
	for range 40 {
		if got := call(webPort); got != "web" {
			t.Fatalf("a call of web was answered %q", got)
		}
	}
	for _, p := range r.lastReport().GetProxies() {
		if p.GetName() == "orders" && !slices.Equal(p.GetPorts(), []uint32{ordersPort}) {
			t.Errorf("it is said to serve %v", p.GetPorts())
		}
		if left := p.GetLeftOut(); (len(left) == 1 && strings.Contains(left[0].GetMessage(), "proxy web listens on")) != (p.GetName() == "orders") {
			t.Errorf("left out of %s: %v", p.GetName(), left)
		}
	}
}
