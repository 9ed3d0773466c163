package e2e

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// The users of TestWhereAnApplicationIsOnSockets: web's, orders' and the proxies'.
const webUser, ordersUser, proxyUser = 59011, 59012, 59013

// TestWhereAnApplicationIsOnSocketsFilesSayWhoSpeaks: web listens and calls out on
// Unix sockets, orders listens on one and calls out through a port.
func TestWhereAnApplicationIsOnSocketsFilesSayWhoSpeaks(t *testing.T) {
	if os.Getuid() != 0 {
		parts.Missing(t, "other users need root")
	}
	probe := "      healthCheck: {protocol: http, path: /ping, intervalMillis: 5000, timeoutMillis: 2000, healthyThreshold: 2, unhealthyThreshold: 2}\n"
	echo := meshtest.Echo("orders")
	w := meshtest.Start(t, meshtest.Options{
		Apps: map[string]meshtest.App{"orders": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close") // each request finds the socket anew
			echo.ServeHTTP(w, r)
		})},
		Nodes: []string{"web", "orders"}, ProxyUser: strconv.Itoa(proxyUser),
		OnSockets: map[string]meshtest.OnSockets{"web": {User: webUser, WayOut: true}, "orders": {User: ordersUser}},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", probe+meshtest.Strict("test.example", "web"), "orders"),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders"), "web"),
			meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("web", "web")),
	})
	w.AwaitRoute("web", host+"/")
	out, ordersOut := w.Nodes["web"].EgressAddress(), w.Nodes["orders"].EgressAddress()
	silent, connected := connectAs(t, webUser, out), time.Now()
	may := func(what string, uid int, at, url string, yes bool) {
		t.Helper()
		var status int
		var err error
		ok := func() bool {
			parts.AsUser(t, uid, func() { status, err = rawCallTo(at, url) })
			return yes == (err == nil && status == 200)
		}
		for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d, %v", what, status, err)
			}
		}
	}
	may("web's application, out through its socket and in through that of orders", webUser, out, host+"/", true)
	if a := w.Get("web", host+"/"); a.Status != 200 || a.Seen.Caller() != ownID {
		t.Errorf("through the socket: %d, as %q", a.Status, a.Seen.Caller())
	}
	parts.AsUser(t, ordersUser, func() {
		if _, err := rawCallTo(out, host+"/"); !errors.Is(err, syscall.EACCES) {
			t.Errorf("another user at the way out of web: %v", err)
		}
	})
	may("orders' application, known by its socket, at its port", ordersUser, ordersOut, webHost+"/", true)
	may("another user there", webUser, ordersOut, webHost+"/", false)
	may("root there", 0, ordersOut, webHost+"/", false)

	if seen, row := tryAll(t, out), reachTable(t)["proxy, outbound socket"]; seen != row || seen.anotherUser == "" {
		t.Errorf("seen %+v, and SECURITY.md has %+v", seen, row)
	}
	t.Run("while nobody listens, nobody else can", func(t *testing.T) {
		for _, at := range []string{filepath.Dir(out) + "/x.sock", strings.TrimPrefix(strings.Replace(w.Nodes["web"].App, "{port}", "9090", 1), "unix:")} {
			parts.AsUser(t, otherUser, func() {
				if l, err := net.Listen("unix", at); !errors.Is(err, syscall.EACCES) {
					t.Errorf("another user listens at %s: %v, %v", at, l, err)
				}
			})
		}
	})
	t.Run("the application cannot lead its proxy to another socket", func(t *testing.T) {
		at := strings.TrimPrefix(strings.Replace(w.Nodes["orders"].App, "{port}", "8080", 1), "unix:")
		admin := filepath.Join(w.AgentDir(), "proxies", "web", "admin.sock")
		var err error
		parts.AsUser(t, ordersUser, func() { err = errors.Join(os.Rename(at, at+".away"), os.Symlink(admin, at)) })
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "no answer but the proxy's own", func() bool {
			a := w.Get("web", host+"/server_info")
			if a.Status == 200 && a.Seen.Service == "" {
				t.Fatalf("the admin interface of a proxy of the same user: %s", a.Body)
			}
			return a.Status == 503
		})
		parts.AsUser(t, ordersUser, func() { err = errors.Join(os.Remove(at), os.Rename(at+".away", at)) })
		if err != nil {
			t.Fatal(err)
		}
		w.AwaitRoute("web", host+"/")
	})
	t.Run("a folder that is no longer as it must be is found while Envoy runs", func(t *testing.T) {
		dir := filepath.Dir(strings.TrimPrefix(w.Nodes["web"].App, "unix:"))
		const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		if err := unix.Mount("", dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
		may("web's application", webUser, out, host+"/", false)
		said := ""
		eventually(t, 10*time.Second, "check says so", func() bool {
			said, _ = w.CLI("check")
			return strings.Contains(said, "SIG040") && strings.Contains(said, "nosymfollow")
		})
		if err := unix.Mount("", dir, "", flags|unix.MS_NOSYMFOLLOW, ""); err != nil {
			t.Fatal(err)
		}
		may("once it is mended", webUser, out, host+"/", true)
	})
	t.Run("a Binding cannot name who calls at a socket", func(t *testing.T) {
		bind := func(applications string) {
			w.Apply("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web-proxy}\n" +
				"spec: {group: hosts, mesh: test, virtualNode: web, selectors: [\"signet:proxy:web\"], applications: [" + applications + "]}\n")
		}
		bind(`"unix:uid:` + strconv.Itoa(webUser) + `"`)
		may("who is named, and cannot be seen", webUser, out, host+"/", false)
		eventually(t, 10*time.Second, "check says so", func() bool {
			said, _ := w.CLI("check")
			return strings.Contains(said, "SIG040") && strings.Contains(said, "leave applications out") && !strings.Contains(said, "<uid of the application>")
		})
		bind("")
		may("nobody is named", webUser, out, host+"/", true)
	})
	t.Run("in a folder that others can write to nobody is let out", func(t *testing.T) {
		if err := os.Chmod(filepath.Dir(out), 0o777); err != nil {
			t.Fatal(err)
		}
		may("web's application", webUser, out, host+"/", false)
		if said := w.Agent.Tail(1 << 20); !strings.Contains(said, "reason=socket") {
			t.Error("the agent's log does not say why")
		}
		eventually(t, 10*time.Second, "check says what to do", func() bool { // the log has some of many refusals only
			said, _ := w.CLI("check")
			return strings.Contains(said, "SIG040") && strings.Contains(said, "chmod")
		})
		if err := os.Chmod(filepath.Dir(out), 0o2750); err != nil {
			t.Fatal(err)
		}
		may("once it is mended", webUser, out, host+"/", true)
	})
	time.Sleep(time.Until(connected.Add(2500 * time.Millisecond))) // as long as no port waits for a first byte
	if answer, err := rawCallOn(silent, host+"/"); err != nil || answer != 200 {
		t.Errorf("a connection that web's application opened ahead: %d, %v", answer, err)
	}
}

// connectAs is a connection that a user made to a Unix socket.
func connectAs(t *testing.T, uid int, at string) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	parts.AsUser(t, uid, func() { c, err = net.Dial("unix", at) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed
	return c
}
