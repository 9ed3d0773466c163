package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// otherUser is a user of the host who has nothing to do with it.
const otherUser = 61001

// counting is an application that tells who of the two users reached it.
type counting struct {
	http.Handler
	owner, stranger, body atomic.Int64
}

func newCounting() *counting {
	c := &counting{Handler: meshtest.Echo("orders")}
	return c
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/stolen") {
		c.stranger.Add(1)
		n, _ := io.Copy(io.Discard, r.Body)
		c.body.Add(n)
	} else {
		c.owner.Add(1)
	}
	c.Handler.ServeHTTP(w, r)
}

func wayOutWorld(t *testing.T, app meshtest.App, extra string) *meshtest.World {
	t.Helper()
	if os.Getuid() != 0 {
		parts.Missing(t, "another user needs root")
	}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "orders"}, Apps: map[string]meshtest.App{"orders": app}, Applications: map[string]string{"web": extra},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "orders"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders")),
	})
	w.AwaitRoute("web", host+"/orders")
	return w
}

// callAs makes one request as a user, on a connection of its own.
func callAs(t *testing.T, uid int, at, path string) (status int, err error) {
	t.Helper()
	call := func() { status, err = rawCall(at, path) }
	if uid == 0 {
		call()
	} else {
		parts.AsUser(t, uid, call)
	}
	return status, err
}

func rawCall(at, path string) (int, error) {
	conn, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // read to its end
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", host+path); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

func TestOnlyTheApplicationCallsOutWithTheProxysIdentity(t *testing.T) {
	app := newCounting()
	w := wayOutWorld(t, app, "")
	at := w.Nodes["web"].EgressAddress()

	if a := w.Get("web", host+"/orders"); a.Status != 200 || a.Seen.Caller() != "spiffe://test.example/test/web" {
		t.Fatalf("the application: %d, as %q", a.Status, a.Seen.Caller())
	}
	if status, err := callAs(t, otherUser, at, "/stolen"); err == nil {
		t.Errorf("another user was answered %d", status)
	}
	if !strings.Contains(w.Agent.Tail(1<<20), fmt.Sprintf("user %d is not the application, which is user 0", otherUser)) {
		t.Error("the agent's log does not say who was refused and why")
	}

	t.Run("none of its own connections fails", func(t *testing.T) {
		const workers = 4
		var failed atomic.Int64
		var wg sync.WaitGroup
		n := meshtest.Soak(2_000, 200_000)
		for range workers {
			wg.Go(func() {
				for range n / workers {
					if status, err := rawCall(at, "/orders"); err != nil || status != 200 {
						failed.Add(1)
						t.Logf("%d, %v", status, err)
					}
				}
			})
		}
		wg.Wait()
		if failed.Load() > 0 {
			t.Errorf("%d of %d connections failed", failed.Load(), n)
		}
	})
	t.Run("no byte of another user's reaches anybody, however fast it leaves", func(t *testing.T) {
		n, sent := meshtest.Soak(2_000, 200_000), 0
		parts.AsUser(t, otherUser, func() {
			for i := range n {
				conn, err := net.DialTimeout("tcp", at, 5*time.Second)
				if err != nil {
					continue
				}
				_, err = fmt.Fprintf(conn, "POST %s/stolen/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nbytes", host, i)
				if err == nil {
					sent++
				}
				if i%3 == 0 {
					_ = conn.(*net.TCPConn).SetLinger(0)
				}
				_ = conn.Close()
			}
		})
		time.Sleep(500 * time.Millisecond) // what is under way arrives
		if app.stranger.Load() != 0 || app.body.Load() != 0 {
			t.Errorf("%d requests, %d bytes of another user reached the application", app.stranger.Load(), app.body.Load())
		}
		if sent < n*9/10 {
			t.Errorf("only %d of %d were sent", sent, n)
		}
	})
	t.Run("without the authz process as with it", func(t *testing.T) {
		if err := unix.Kill(authzPID(t, w), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if status, err := callAs(t, otherUser, at, "/stolen"); err == nil {
			t.Errorf("another user was answered %d", status)
		}
	})
	if app.stranger.Load() != 0 {
		t.Error("another user reached the application")
	}
}
