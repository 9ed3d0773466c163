package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/redirect"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// nowhere is an address that is routed to the other host, as all are, and that nobody has.
const nowhere = "203.0.113.7"

// second is another address of this host.
const second = "10.231.0.5"

// redirectedWorld is a mesh on a host of its own, of which web is what is redirected: what its
// application calls, which is that of user 1000, and what calls it at this host's address. The
// other host has a database, and what is in no mesh.
func redirectedWorld(t *testing.T) *meshtest.World {
	t.Helper()
	everythingIsRouted(t)
	for port, name := range map[string]string{"5432": "database", "9999": "in no mesh"} {
		sayingAt(t, parts.AnotherHost+":"+port, name)
	}
	var outside net.Listener
	parts.FromAnotherHost(t, func() {
		var err error
		if outside, err = net.Listen("tcp", parts.AnotherHost+":8080"); err != nil {
			t.Error(err)
		}
	})
	serveOn(t, outside, meshtest.Echo("outside"))
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"web", "orders"}, Binds: map[string]string{"web": parts.ThisHost, "orders": second}, Ranges: `"10.231.0.0/24"`,
		Capture: map[string]string{"web": "{egress: 15001, ingress: 15000}"}, Applications: map[string]string{"web": `"unix:uid:1000"`},
		Policy: map[string]string{"some.rego": "package signet.authz\n\nallow contains \"all but one\" if input.request.path != \"/secret\"\n"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "orders", "db"), meshtest.VirtualNode("orders", ""),
			meshtest.ServiceOfNode("web", "web"), meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("db", "db"),
			"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: db}\nspec:\n  meshRef: {name: test}\n  listeners: [{portMapping: {port: 5432, protocol: tcp}}]\n"+
				"  serviceDiscovery: {dns: {hostname: "+parts.AnotherHost+"}}\n"),
	})
	up(t, redirect.Rules{EgressPort: 15001, IngressPort: 15000, AppPorts: []uint16{8080, 7777}, IgnoreUIDs: []uint32{0}})
	return w
}

// everythingIsRouted has this host more addresses, and a way to each other one.
func everythingIsRouted(t *testing.T) {
	t.Helper()
	for _, args := range []string{"addr add " + second + "/24 dev wire", "addr add 2001:db8:1::1/64 dev wire nodad", "-6 route add default dev wire", "route add default via " + parts.AnotherHost} {
		if out, err := exec.CommandContext(t.Context(), parts.Program(t, "ip"), strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

func up(t *testing.T, r redirect.Rules) {
	t.Helper()
	if err := redirect.Up(r); err != nil {
		t.Fatal(err)
	}
}

// sayingAt serves there, on the other host: it says a name to whoever says something.
func sayingAt(t *testing.T, at, name string) {
	t.Helper()
	var l net.Listener
	parts.FromAnotherHost(t, func() {
		var err error
		if l, err = net.Listen("tcp", at); err != nil {
			t.Error(err)
		}
	})
	sayingOn(t, l, name)
}

// sayingOn serves at a listener.
func sayingOn(t *testing.T, l net.Listener, name string) {
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 64)) // who went away needs no answer
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
}

func serveOn(t *testing.T, l net.Listener, app http.Handler) {
	t.Helper()
	server := &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close(); <-done })
}

// says is what is answered there to a few bytes.
func says(at string) (string, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // read to its end
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	return string(text), err
}

// asked is who answers a request for a host at an address, and with what: "orders 200".
func asked(at, host, path string) (string, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // read to its end
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	var seen meshtest.Seen
	_ = json.NewDecoder(answer.Body).Decode(&seen) // a proxy's own answer is none
	return strings.TrimSpace(fmt.Sprintf("%s %d", seen.Service, answer.StatusCode)), nil
}

func TestWhatIsRedirectedGoesOutAsItsApplicationsAndComesInAsItsCallers(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	w := redirectedWorld(t)
	orders := meshtest.HostOf("orders") + ":8080"
	as := func(uid int, f func() (string, error)) func() (string, error) {
		return func() (text string, err error) {
			parts.AsUser(t, uid, func() { text, err = f() })
			return text, err
		}
	}
	there := func(f func() (string, error)) func() (string, error) {
		return func() (text string, err error) {
			parts.FromAnotherHost(t, func() { text, err = f() })
			return text, err
		}
	}
	request := func(at, host, path string) func() (string, error) {
		return func() (string, error) { return asked(at, host, path) }
	}
	bytes := func(at string) func() (string, error) { return func() (string, error) { return says(at) } }
	expect := func(what, want string, f func() (string, error)) {
		t.Helper()
		if got, err := f(); got != want || want == "" && err != nil && errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
	}
	refused := func(what string, f func() (string, error)) {
		t.Helper()
		if got, err := f(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %q, %v, want a refused connection", what, got, err)
		}
	}
	first := as(1000, request(nowhere+":8080", orders, "/"))
	eventually(t, 30*time.Second, "what is redirected reaches its backend", func() bool { got, err := first(); return err == nil && got == "orders 200" })

	t.Run("out", func(t *testing.T) {
		expect("by IPv6", "orders 200", as(1000, request("[2001:db9::7]:8080", orders, "/")))
		expect("by http_proxy", "orders 200", as(1000, request("127.0.0.1:15001", orders, "http://"+orders+"/")))
		expect("who comes to the way out itself", "404", as(1000, request("127.0.0.1:15001", "127.0.0.1:15001", "/")))
		expect("another host on a backend's port", "404", as(1000, request(parts.AnotherHost+":8080", "outside.example:8080", "/")))
		expect("bytes on a port that one backend has", "database", as(1000, bytes(nowhere+":5432")))
		expect("what is not declared", "", as(1000, bytes(parts.AnotherHost+":9999")))
		expect("bytes of TLS on a port of HTTP", "", as(1000, bytesOfTLS(nowhere+":8080")))
		expect("another user", "", as(1001, request(nowhere+":8080", orders, "/")))
		expect("another user's bytes", "", as(1001, bytes(nowhere+":5432")))
		refused("from another host", there(bytes(parts.ThisHost+":15001")))
		if log := w.Agent.Tail(1 << 20); !strings.Contains(log, "user 1001 is not among the applications") {
			t.Error("the agent does not say who was refused")
		}
		eventually(t, 10*time.Second, "the agent says what was not let out", func() bool { return found(w, "--from", "not-let-out") })
	})
	t.Run("in", func(t *testing.T) {
		listening, err := net.Listen("tcp", parts.ThisHost+":8080") // the proxy leaves it to the application
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, listening, meshtest.Echo("past the proxy"))
		at := parts.ThisHost + ":8080"
		expect("a neighbour in plaintext", "web 200", there(request(at, "web", "/")))
		expect("what the policy denies", "403", there(request(at, "web", "/secret")))
		expect("a port without a listener", "", there(bytes(parts.ThisHost+":7777")))
		expect("the port of redirected connections", "", there(bytes(parts.ThisHost+":15000")))
		expect("the same from here", "", bytes("127.0.0.1:15000"))
		expect("by TLS", "spiffe://test.example/test/web", there(func() (string, error) { return certificateAt(at) }))
		eventually(t, 10*time.Second, "the agent says what had no listener", func() bool { return found(w, "--to", "undeclared-port") })
	})
	t.Run("all", func(t *testing.T) {
		w.Apply(strings.Replace(meshtest.Mesh(), "DROP_ALL", "ALLOW_ALL", 1))
		past := as(1000, bytes(parts.AnotherHost+":9999"))
		eventually(t, 20*time.Second, "what is not declared goes on to its destination", func() bool { got, err := past(); return err == nil && got == "in no mesh" })
		expect("another host on a backend's port", "outside 200", as(1000, request(parts.AnotherHost+":8080", "outside.example:8080", "/")))
		expect("a backend", "orders 200", first)
		expect("who comes to the way out itself", "404", as(1000, request("127.0.0.1:15001", "127.0.0.1:15001", "/")))
		expect("another user", "", as(1001, bytes(parts.AnotherHost+":9999")))

		w.Apply(meshtest.Join("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: db}\nspec: {meshRef: {name: test}, listeners: [{portMapping: {port: 5432, protocol: tcp}}]}\n",
			meshtest.ServiceOfRouter("db", "db")))
		database := as(1000, bytes(parts.AnotherHost+":5432"))
		eventually(t, 20*time.Second, "a backend that has no route goes on to no destination", func() bool { got, _ := database(); return got == "" })
		expect("what is not declared, still", "in no mesh", past)
	})
}

// found reports whether web's answers of this kind are found, from or to it.
func found(w *meshtest.World, end, kind string) bool {
	out, _ := w.CLI("explain", end, "test/web", "--since", "10m")
	return strings.Contains(out, kind)
}

// bytesOfTLS is the answer to the beginning of a handshake.
func bytesOfTLS(at string) func() (string, error) {
	return func() (string, error) {
		c, err := net.DialTimeout("tcp", at, 5*time.Second)
		if err != nil {
			return "", err
		}
		defer func() { _ = c.Close() }() // read to its end
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return "", err
		}
		err = tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake() //nolint:gosec // who answers is not the question
		if err == nil {
			return "a handshake", nil
		}
		return "", err
	}
}

// certificateAt is the name in the certificate that a server shows.
func certificateAt(at string) (string, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()                               // nothing was sent
	client := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the name is looked at by the test
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if err := client.Handshake(); err != nil {
		return "", err
	}
	names := client.ConnectionState().PeerCertificates[0].URIs
	if len(names) != 1 {
		return "", fmt.Errorf("%d names", len(names))
	}
	return names[0].String(), nil
}
