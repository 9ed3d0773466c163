package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

const storePort = 6379

// speaker is an application that speaks first, answers what it is told, and counts who came.
type speaker struct{ came atomic.Int64 }

func startSpeaker(t *testing.T, host string) *speaker {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, storePort))
	if err != nil {
		t.Fatal(err)
	}
	s := &speaker{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.came.Add(1)
			go func() {
				defer func() { _ = c.Close() }() // the client's to end
				if _, err := io.WriteString(c, "hello "); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return s
}

var placeInAnswer = regexp.MustCompile(`the application connects to (\S+) `)

// wayTo is where the application of a node connects to speak to the store.
func wayTo(t *testing.T, w *meshtest.World, node string) string {
	t.Helper()
	out, code := w.CLI("routes", fmt.Sprintf("%s:%d", meshtest.HostOf("store"), storePort), "--from", node)
	place := placeInAnswer.FindStringSubmatch(out)
	if code != 0 || place == nil || !strings.Contains(out, fmt.Sprintf("to cds_egress_test_store_tcp_%d, 100 %%", storePort)) {
		t.Fatalf("exit %d: %s", code, out)
	}
	return place[1]
}

// exchange says something on a connection and returns what came back of the length, or
// an error where it ended before.
func exchange(c net.Conn, text string, length int) (string, error) {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	got := make([]byte, length)
	n, err := io.ReadFull(c, got)
	return string(got[:n]), err
}

func speak(at string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return nil, err
	}
	got, err := exchange(c, "store", len("hello store"))
	if err == nil && got != "hello store" {
		err = fmt.Errorf("it answered %q", got)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

const storePolicy = `package signet.authz.store

allow contains "web speaks to the store" if {
	input.source.virtual_node == "web"
	input.connection.port == 6379
}
`

func storeNode(extra string) string {
	return fmt.Sprintf(`apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: store}
spec:
  meshRef: {name: test}
  listeners: [{portMapping: {port: %d, protocol: tcp}%s}]
  logging: {accessLog: {file: {path: /dev/stdout, format: {text: "store %%DOWNSTREAM_PEER_URI_SAN%% %%DYNAMIC_METADATA(envoy.filters.network.ext_authz:decision_id)%%\n"}}}}
`, storePort, extra)
}

func TestConnectionsAreLetByIdentityAndTheirCallersAreKnown(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "batch", "store"}, Policy: map[string]string{"store.rego": storePolicy},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "store"), meshtest.VirtualNode("batch", "", "store"),
			storeNode(""), meshtest.ServiceOfNode("store", "store")),
	})
	app := startSpeaker(t, w.Nodes["store"].App)
	ofWeb, ofBatch := wayTo(t, w, "web"), wayTo(t, w, "batch")
	var open net.Conn
	w.Await("web speaks to the store", 30*time.Second, func() (err error) {
		open, err = speak(ofWeb)
		return err
	})
	t.Cleanup(func() { _ = open.Close() })

	// Nobody is behind what ends in silence: whoever it is that is not let.
	came := app.came.Load()
	refused := func(what string, call func() error) {
		t.Helper()
		if err := call(); err == nil || app.came.Load() != came {
			t.Errorf("%s: %v, and the store was connected to %d times", what, err, app.came.Load()-came)
		}
	}
	at := func(to string) func() error {
		return func() error { return hungUp(speak(to)) }
	}
	refused("one whom the policy does not let", at(ofBatch))
	refused("one without an identity", at(fmt.Sprintf("%s:%d", w.Nodes["store"].Bind, storePort)))
	if os.Getuid() == 0 {
		refused("another user of the host", func() (err error) {
			parts.AsUser(t, otherUser, func() { err = at(ofWeb)() })
			return err
		})
	} else {
		parts.Missing(t, "another user needs root")
	}
	inLog := regexp.MustCompile(`store spiffe://test\.example/test/batch ([0-9a-f]{32})`)
	var id string
	eventually(t, 10*time.Second, "the denial's id is in the access log", func() bool {
		m := inLog.FindStringSubmatch(w.Agent.Tail(1 << 20))
		if m != nil {
			id = m[1]
		}
		return m != nil
	})
	if out, code := w.CLI("explain", id); code != 0 || !strings.Contains(out, "spiffe://test.example/test/batch") || !strings.Contains(out, "tcp port 6379") || !strings.Contains(out, "no allow rule holds") {
		t.Errorf("exit %d: %s", code, out)
	}

	// A stopped authz answers nobody; the proxy's own record is found.
	pid := authzPID(t, w)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	refused("while authz stands still", at(ofWeb))
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}

	// A new policy ends no connection, and holds for the next.
	w.CommitPolicy(map[string]string{"store.rego": strings.Replace(storePolicy, `"web"`, `"batch"`, 1)})
	w.SyncPolicy()
	var other net.Conn
	w.Await("the new policy holds", 30*time.Second, func() (err error) {
		other, err = speak(ofBatch)
		return err
	})
	t.Cleanup(func() { _ = other.Close() })
	came = app.came.Load()
	refused("one whom the policy lets no more", at(ofWeb))
	if got, err := exchange(open, "y", 1); err != nil || got != "y" {
		t.Errorf("an open connection after a change of policy: %q, %v", got, err)
	}

	// Who has it as a backend no more is refused in the handshake, and what is open ends.
	w.Apply(meshtest.VirtualNode("web", ""))
	_ = open.SetDeadline(time.Now().Add(20 * time.Second)) // of a TCP connection
	if _, err := io.Copy(io.Discard, open); err != nil {
		t.Errorf("the connection of a caller who has no such backend any more: %v", err)
	}
}

// hungUp is what a test that wants no connection does with one.
func hungUp(c net.Conn, err error) error {
	if c != nil {
		return c.Close()
	}
	return err
}
