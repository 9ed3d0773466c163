package agent_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sys/unix"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/test/parts"
)

const foreignName = "web@127.0.0.9" // of adsOf

// reported is how a proxy of this name was last, nil where it was not.
func (r *rig) reported(name string) *api.ProxyStatus {
	for _, p := range r.lastReport().GetProxies() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

// routeListener gives web a listener at a port.
func (r *rig) routeListener(port uint32) {
	name := fmt.Sprintf("lds_ingress_127.0.0.9_%d", port)
	r.route(webNode, "", r.resource(ads.ListenerType, name, &listenerv3.Listener{
		Name: name, Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.9", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
	}))
}

// follow has this process be a proxy of web, which acknowledges what it is sent until its
// connection is closed.
func (r *rig) follow() (closed func()) {
	conn := r.dial("xds.sock")
	s := r.adsOn(conn, "127.0.0.1", webNode)
	_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ads.ListenerType}) // an error shows at Recv
	done := make(chan struct{})
	go func() { // ends with the connection
		defer close(done)
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}) // likewise
		}
	}()
	return func() { _ = conn.Close(); <-done }
}

// listenAs is the port on which a process of this user listens at the proxy's address.
func listenAs(t *testing.T) (port uint32, closed func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })                                   // closed already, or not needed any more
	return uint32(l.Addr().(*net.TCPAddr).Port), func() { _ = l.Close() } //nolint:forcetypeassert,gosec // it listens on TCP
}

// listenAsUnknown is the port on which a user listens there who has no number in this user
// namespace, as far as the kernel tells.
func listenAsUnknown(t *testing.T) (port uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "root: to listen as another user")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A socket is of the user as whom its thread touches files.
	if before, err := unix.SetfsuidRetUid(65534); err != nil || before != 0 {
		t.Fatal(before, err)
	}
	defer func() { _, _ = unix.SetfsuidRetUid(0) }() // it was
	port, _ = listenAs(t)
	return port
}

// Its process is of this user: what listens is not its own, and could be anybody's.
func TestAProxyWhoseListenerIsOfAnUnknownUserIsNotCalledAndThatIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	port := listenAsUnknown(t)
	r.routeListener(port)
	r.ready()
	defer r.follow()()
	told := fmt.Sprintf("proxy %s is not called at all of its ports, who listens on 127.0.0.9:%d has no number in the agent's user namespace", foreignName, port)
	r.await(told, func() bool {
		return slices.ContainsFunc(r.lastReport().GetOwn(), func(f *api.AgentFinding) bool {
			return f.GetKind() == api.AgentFinding_PROXY_ADDRESS && strings.HasPrefix(f.GetText(), told)
		})
	})
	if p := r.reported(foreignName); p.GetHealthy() || len(p.GetPorts()) != 0 {
		t.Errorf("%v", p)
	}
}

func TestAProxyThatTheAgentDidNotStartIsReportedWhileItServes(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	port, silence := listenAs(t)
	r.routeListener(port)
	r.ready()
	if !r.lastReport().GetReturning() {
		t.Error("an agent that has just begun does not say that proxies may come back to it")
	}
	leave := r.follow()
	r.await("its endpoint", func() bool { return r.reported(foreignName).GetHealthy() })
	p := r.reported(foreignName)
	if p.GetState() != api.ProxyStatus_READY || !p.GetForeign() || p.GetAddress() != "127.0.0.9" || len(p.GetPorts()) != 1 || p.GetPorts()[0] != port ||
		p.GetVirtualNode().GetName() != "web" || p.GetConfig() != api.ProxyStatus_SYNCED {
		t.Errorf("%v", p)
	}
	leave()
	r.await("an unhealthy endpoint", func() bool { return r.reported(foreignName) != nil && !r.reported(foreignName).GetHealthy() })
	if p := r.reported(foreignName); p.GetState() != api.ProxyStatus_READY || p.GetReason() == "" || len(p.GetPorts()) != 1 {
		t.Errorf("just gone: %v", p)
	}
	leave = r.follow()
	defer leave()
	r.await("its endpoint again", func() bool { return r.reported(foreignName).GetHealthy() })
	silence()
	r.await("an unhealthy endpoint of one that listens no more", func() bool { return !r.reported(foreignName).GetHealthy() })
	r.await("no endpoint", func() bool { return r.reported(foreignName) == nil })
	if r.lastReport().GetReturning() {
		t.Error("proxies may come back to it for ever")
	}
}

// What a process says of itself is no endpoint: it may be bound, and lie.
func TestAProxyThatDoesNotListenWhereItSaysIsNotReported(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	port, silence := listenAs(t)
	silence()
	r.routeListener(port)
	r.ready()
	defer r.follow()()
	r.await("its view is taken", func() bool {
		views := r.lastReport().GetViews()
		return len(views) == 1 && views[0].GetVersion() != ""
	})
	time.Sleep(2 * time.Second)
	if p := r.reported(foreignName); p != nil {
		t.Errorf("it is reported: %v", p)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.9", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal("the port is another's meanwhile: ", err)
	}
	defer func() { _ = l.Close() }()
	r.await("its endpoint, once it listens", func() bool { return r.reported(foreignName).GetHealthy() })
}
