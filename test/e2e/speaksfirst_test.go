package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/redirect"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// greeter is a server on the other host that speaks first, as MySQL's and SMTP's do, and counts who came.
type greeter struct{ came atomic.Int64 }

func greetingAt(t *testing.T, port string) *greeter {
	t.Helper()
	var l net.Listener
	parts.FromAnotherHost(t, func() {
		var err error
		if l, err = net.Listen("tcp", parts.AnotherHost+":"+port); err != nil {
			t.Error(err)
		}
	})
	g, done := &greeter{}, make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.came.Add(1)
			_, _ = io.WriteString(c, "220 who are you?") // who went away is not greeted
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = c.Read(make([]byte, 64)) // nor are all polite
			_ = c.Close()
		}
	}()
	return g
}

// listened is what is heard there by who says nothing, until the connection ends.
func listened(at string) (string, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // read to its end
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	return string(text), err
}

// A server that speaks first is reached by no redirected connection, whether it is declared, or passed on to by
// ALLOW_ALL: the connection ends, and nobody has connected to the server. Where its port is left out it is reached.
func TestAServerThatSpeaksFirstIsReachedByNoRedirectedConnection(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	declared, other := greetingAt(t, "3306"), greetingAt(t, "25")
	w := redirectedWorld(t)
	w.Apply(strings.Replace(meshtest.Mesh(), "DROP_ALL", "ALLOW_ALL", 1))
	answer := w.Apply(meshtest.Join(meshtest.VirtualNode("web", "", "orders", "db", "sql"), meshtest.ServiceOfNode("sql", "sql"),
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: sql}\nspec:\n  meshRef: {name: test}\n  listeners: [{portMapping: {port: 3306, protocol: tcp}}]\n"+
			"  serviceDiscovery: {dns: {hostname: "+parts.AnotherHost+"}}\n"))
	if said := strings.Join(answer.GetWarnings(), "\n"); !strings.Contains(said, "if this is MySQL, in which the server speaks first") {
		t.Errorf("apply warns: %s", said)
	}
	listen := func(port string) (text string, err error) {
		parts.AsUser(t, 1000, func() { text, err = listened(parts.AnotherHost + ":" + port) })
		return text, err
	}
	ready := func(what, at string) { // by a client that speaks first, whom the greeting reaches
		w.Await(what, 30*time.Second, func() (err error) {
			var text string
			parts.AsUser(t, 1000, func() { text, err = says(at) })
			if err == nil && !strings.HasPrefix(text, "220 ") {
				err = errors.New("it hears nothing: " + text)
			}
			return err
		})
	}
	ready("the declared one's port", parts.AnotherHost+":3306")
	ready("what is not declared", parts.AnotherHost+":25")
	for what, server := range map[string]struct {
		*greeter
		port string
	}{"declared": {declared, "3306"}, "not declared": {other, "25"}} {
		before := server.came.Load()
		text, err := listen(server.port)
		if text != "" || errors.Is(err, os.ErrDeadlineExceeded) || server.came.Load() != before {
			t.Errorf("%s: %q, %v, and %d came", what, text, err, server.came.Load()-before)
		}
	}
	up(t, redirect.Rules{EgressPort: 15001, IngressPort: 15000, AppPorts: []uint16{8080}, IgnoreUIDs: []uint32{0}, IgnorePorts: []uint16{25, 3306}})
	for _, port := range []string{"25", "3306"} {
		if text, err := listen(port); text != "220 who are you?" {
			t.Errorf("port %s is left out: %q, %v", port, text, err)
		}
	}
}
