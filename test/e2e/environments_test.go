package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// wwwData is the user of nginx' workers on Debian.
const wwwData = 33

// TestAListenerThatAnotherUserMadeIsTheApplicationsOnceItsUserIsNamed: the socket
// of an application may be made by root and served by another user, who calls out.
func TestAListenerThatAnotherUserMadeIsTheApplicationsOnceItsUserIsNamed(t *testing.T) {
	if os.Getuid() != 0 {
		parts.Missing(t, "another user needs root")
	}
	nginx, activate := parts.Program(t, "nginx"), parts.Program(t, "systemd-socket-activate")
	setpriv, curl := parts.Program(t, "setpriv"), parts.Program(t, "curl")
	app := &movable{Handler: meshtest.Echo("web")}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "orders"}, Apps: map[string]meshtest.App{"web": app},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "orders"), meshtest.VirtualNode("orders", ""), meshtest.ServiceOfNode("orders", "orders")),
	})
	w.AwaitRoute("web", host+"/orders")
	app.leave(t)
	n := w.Nodes["web"]
	at := net.JoinHostPort(n.App, strconv.Itoa(meshtest.AppPort))
	bind := func(applications string) {
		t.Helper()
		w.Apply("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web-proxy}\n" +
			"spec: {group: hosts, mesh: test, virtualNode: web, selectors: [\"signet:proxy:web\"], applications: [" + applications + "]}\n")
	}
	named := func(uid int) string { return fmt.Sprintf("\"unix:uid:%d\"", uid) }
	refused := func(uid int) {
		t.Helper()
		eventually(t, 10*time.Second, "the agent says who was refused", func() bool {
			return strings.Contains(w.Agent.Tail(1<<20), fmt.Sprintf("user %d is not the application, which is user 0", uid))
		})
	}

	t.Run("nginx with workers", func(t *testing.T) {
		dir := filepath.Join(w.Dir, "nginx")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(config, []byte(strings.NewReplacer("DIR", dir, "AT", at, "OUT", n.EgressAddress()).Replace(`daemon off; user www-data; worker_processes 2; pid DIR/pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server {
    listen AT;
    location / { proxy_pass http://OUT; proxy_http_version 1.1; proxy_set_header Host orders.test.internal; }
  }
}
`)), 0o600); err != nil {
			t.Fatal(err)
		}
		defer w.Run("nginx", nginx, "-c", config, "-e", "stderr").Stop()
		out := func() int {
			resp, err := http.Get("http://" + at + "/orders")
			if err != nil {
				return 0
			}
			_ = resp.Body.Close() // only its status
			return resp.StatusCode
		}
		eventually(t, 10*time.Second, "a worker calls out, and is closed", func() bool { return out() == 502 })
		refused(wwwData)
		bind(named(wwwData))
		eventually(t, 10*time.Second, "its user is named", func() bool { return out() == 200 })
		bind("")
	})

	t.Run("socket activation", func(t *testing.T) {
		calls, answered := 0, regexp.MustCompile(`(?m)^([0-9]{3}) was the answer$`)
		call := func() string { // the first connection starts the program, which calls out and ends
			t.Helper()
			uid := strconv.Itoa(otherUser)
			calls++
			p := w.Run(fmt.Sprintf("activated-%d", calls), activate, "-l", at, "--", setpriv, "--reuid", uid, "--regid", uid, "--clear-groups", "--",
				curl, "-s", "-o", "/dev/null", "--max-time", "5", "--stderr", "-", "-w", "%{http_code} was the answer\n", "-H", "Host: orders.test.internal", "http://"+n.EgressAddress()+"/orders")
			defer p.Stop()
			eventually(t, 10*time.Second, "systemd-socket-activate listens", func() bool {
				c, err := net.Dial("tcp", at)
				if err == nil {
					_ = c.Close() // it was to be started
				}
				return err == nil
			})
			var said []string
			eventually(t, 10*time.Second, "the program has called", func() bool {
				said = answered.FindStringSubmatch(p.Tail(1 << 16))
				return said != nil
			})
			return said[1]
		}
		if got := call(); got != "000" {
			t.Errorf("the activated program got %s", got)
		}
		refused(otherUser)
		bind(named(otherUser))
		eventually(t, 10*time.Second, "its user is named", func() bool { return call() == "200" })
	})
}
