package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
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

// Envoy asks about a burst of new connections at once, on a connection whose limits
// it was not told yet. Here the agent does not run for as long as the burst takes.
func TestABurstOfNewConnectionsIsLetOutAfterAMomentWithoutTheAgent(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", ""))})
	const burst = 150 // of two workers
	at := w.Nodes["front"].EgressAddress()
	conns := make([]net.Conn, 0, burst)
	stopAgent(t, w)
	for range burst {
		conn, err := net.DialTimeout("tcp", at, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // answered
		if _, err := fmt.Fprint(conn, "GET http://nobody.test.internal/ HTTP/1.1\r\nHost: nobody.test.internal\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	time.Sleep(100 * time.Millisecond) // the proxy has asked; it waits a second for an answer
	if err := unix.Kill(w.Agent.PID(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	failed := map[string]int{}
	for _, conn := range conns {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // of a TCP connection
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			failed[err.Error()]++
		}
	}
	if len(failed) > 0 {
		t.Errorf("of %d connections were not let out: %v\n%s", burst, failed,
			adminGet(t, w, "front", "/stats?usedonly&filter=wayout.*(rx_reset|upstream_cx_total|upstream_rq|error|ok|timeout)"))
	}
}

// stopAgent stops the agent until a SIGCONT, or the end of the test.
func stopAgent(t *testing.T, w *meshtest.World) {
	t.Helper()
	if err := unix.Kill(w.Agent.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(w.Agent.PID(), unix.SIGCONT) }) // it may run again
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

func rawCall(at, path string) (int, error) { return rawCallTo(at, host+path) }

func rawCallTo(at, url string) (int, error) {
	network := "tcp"
	if strings.HasPrefix(at, "/") {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, at, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // read to its end
	return rawCallOn(conn, url)
}

// rawCallOn is one request on a connection, which ends with it.
func rawCallOn(conn net.Conn, url string) (int, error) {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", url); err != nil {
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
	eventually(t, 10*time.Second, "the answer is found by who called", func() bool { return answerOf(t, w, "not-the-application", "--from", "test/web").Cure != "" })

	t.Run("none of its own connections fails, while another user tries as fast as it can", func(t *testing.T) {
		stop, tries := make(chan struct{}), 0
		flooding := make(chan struct{})
		go func() {
			defer close(flooding)
			parts.AsUser(t, otherUser, func() {
				for {
					select {
					case <-stop:
						return
					default:
						if _, err := rawCall(at, "/stolen"); err == nil {
							t.Error("another user was answered")
						}
						tries++
					}
				}
			})
		}()
		defer func() { close(stop); <-flooding; t.Logf("another user tried %d times", tries) }()
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
		served := func(what string) {
			t.Helper()
			// Of a host that the mesh does not know, so that no decision of authz is in it.
			if status, err := rawCallTo(at, "http://unknown.internal/"); err != nil || status != 404 {
				t.Errorf("%s, the application at its way out: %d, %v", what, status, err)
			}
			if status, err := callAs(t, otherUser, at, "/stolen"); err == nil {
				t.Errorf("%s, another user was answered %d", what, status)
			}
		}
		pid := authzPID(t, w)
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		served("while authz stands still")
		// Each new one ends at once: it is dead for most of the time.
		killing, killed := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			for {
				select {
				case <-killing:
					killed <- n
					return
				case <-time.After(5 * time.Millisecond):
					if pid := childPID(t, w.Agent.PID(), "authz"); pid != 0 && unix.Kill(pid, unix.SIGKILL) == nil {
						n++
					}
				}
			}
		}()
		for range 50 {
			served("while authz is dead")
		}
		close(killing)
		if n := <-killed; n == 0 {
			t.Error("authz was never killed")
		} else {
			t.Logf("authz was killed %d times", n)
		}
	})
	if app.stranger.Load() != 0 {
		t.Error("another user reached the application")
	}
}

// movable is an application that can leave its address to another user.
type movable struct {
	http.Handler
	mu sync.Mutex
	l  net.Listener
}

func (m *movable) ServeListener(l net.Listener) {
	m.mu.Lock()
	m.l = l
	m.mu.Unlock()
	server := &http.Server{Handler: m.Handler, ReadHeaderTimeout: 10 * time.Second}
	_ = server.Serve(l) // ends when it is closed
}

func (m *movable) leave(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhoMayCallOutIsToldAndNamedAndANewOwnerIsNotBelieved(t *testing.T) {
	app := &movable{Handler: meshtest.Echo("web")}
	if os.Getuid() != 0 {
		parts.Missing(t, "another user needs root")
	}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "orders"}, Apps: map[string]meshtest.App{"web": app},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "orders"), meshtest.VirtualNode("orders", ""), meshtest.ServiceOfNode("orders", "orders")),
	})
	w.AwaitRoute("web", host+"/orders")
	at := w.Nodes["web"].EgressAddress()
	checked := func(what string, code int, words ...string) {
		t.Helper()
		var out string
		eventually(t, 15*time.Second, "signet check: "+what, func() bool {
			var got int
			out, got = w.CLI("check")
			for _, word := range words {
				if !strings.Contains(out, word) {
					return false
				}
			}
			return got == code
		})
	}
	may := func(what string, uid int, yes bool) {
		t.Helper()
		eventually(t, 10*time.Second, what, func() bool { // an owner is looked up once a second
			status, err := callAs(t, uid, at, "/orders")
			return yes == (err == nil && status == 200)
		})
	}
	bind := func(applications string) []string {
		t.Helper()
		return w.Apply("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web-proxy}\n" +
			"spec: {group: hosts, mesh: test, virtualNode: web, selectors: [\"signet:proxy:web\"], applications: [" + applications + "]}\n").GetWarnings()
	}
	may("the owner", 0, true)
	may("another user", otherUser, false)
	checked("an owner that is root", 0, "SIG041", "proxy web of", "user 0")

	app.leave(t)
	may("the owner, while it does not listen", 0, true)
	var taken net.Listener
	parts.AsUser(t, otherUser, func() {
		var err error
		if taken, err = net.Listen("tcp", w.Nodes["web"].App+":8080"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = taken.Close() })
	may("who has taken the application's port", otherUser, false)
	may("who has lost it", 0, false)
	checked("a new owner", 3, "SIG040", "its application was user 0, and now user 61001", `applications: ["unix:uid:61001"]`)

	accept := regexp.MustCompile(`signet agent owners accept '([^']+)' --uid ([0-9]+)(?: --unit '([^']+)')? --data-dir '([^']+)'`)
	out, _ := w.CLI("check")
	m := accept.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("check has no command that accepts the new owner:\n%s", out)
	}
	take := func(uid int) {
		t.Helper()
		if out, code := w.CLI("agent", "owners", "accept", m[1], "--uid", strconv.Itoa(uid), "--data-dir", m[4]); code != 0 {
			t.Fatal(out)
		}
	}
	if m[2] != strconv.Itoa(otherUser) {
		t.Errorf("the command accepts %q", m[0])
	}
	take(otherUser)
	may("who was accepted", otherUser, true)
	may("who was before", 0, false)
	take(0)
	may("who is there, and another was accepted", otherUser, false)

	bind(`"unix:uid:61001"`)
	may("who is named", otherUser, true)
	may("who is not", 0, false)
	eventually(t, 15*time.Second, "nothing to tell", func() bool { out, _ := w.CLI("check"); return !strings.Contains(out, "SIG040") })

	bind(`"namespace"`)
	may("the agent's own namespace is no unit", otherUser, false)
	may("the agent's own namespace is no unit", 0, false)

	if warnings := strings.Join(bind(`"anyone"`), "\n"); !strings.Contains(warnings, "every process") {
		t.Errorf("applied with %q", warnings)
	}
	may("anyone", otherUser+1, true)
	checked("anyone", 0, "SIG041", "lets anyone call out")
}
