package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/api"
	"signet.example/test/meshtest"
)

// TestSilenceAtAWayOutStopsNoProxy: whoever connects to it and says nothing is closed,
// and takes no files of what comes in, however many connections there are. An application
// whose pool opens connections ahead loses those, and no call (docs/decisions/046).
func TestSilenceAtAWayOutStopsNoProxy(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "orders"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders")),
	})
	w.AwaitRoute("web", host+"/orders")
	const files, room = 1512, 250
	if err := unix.Prlimit(w.Agent.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}, nil); err != nil {
		t.Fatal(err)
	}
	orders := func() *api.ProxyStatus {
		all := w.Proxies()
		at := slices.IndexFunc(all, func(p *api.ProxyStatus) bool { return p.GetName() == "orders" })
		return all[at]
	}
	if err := syscall.Kill(int(orders().GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.Await("the proxy again, with few files", 20*time.Second, func() error {
		if p := orders(); p.GetState() != api.ProxyStatus_READY || p.GetRestarts() == 0 {
			return fmt.Errorf("%s after %d restarts", p.GetStateWord(), p.GetRestarts())
		}
		return nil
	})
	w.AwaitRoute("web", host+"/orders")
	const ahead = 8
	ours := openedAhead(t, w, "web", host+"/orders", ahead)
	at := w.Nodes["orders"].EgressAddress()
	var silent []net.Conn
	for range 2 * files {
		c, err := net.DialTimeout("tcp", at, time.Second)
		if err != nil {
			continue // the backlog is full
		}
		t.Cleanup(func() { _ = c.Close() }) // it may be closed
		silent = append(silent, c)
	}
	begun := time.Now()
	for range 20 {
		if a := w.Get("web", host+"/orders"); a.Status != 200 {
			t.Fatalf("a call that comes in: %+v", a)
		}
	}
	if n := len(alive(silent)); n > room+10 {
		t.Errorf("%d of %d stay, of %d that may", n, len(silent), room)
	}
	left := silent
	for time.Since(begun) < 10*time.Second && len(left) > 0 {
		left = alive(left)
	}
	t.Logf("%d connections said nothing; %d are left after %s", len(silent), len(left), time.Since(begun))
	if len(left) > 0 {
		t.Errorf("%d that say nothing stay", len(left))
	}
	w.Await("the end of the connections that the pool opened ahead", 10*time.Second, func() error {
		if n := ours.closed.Load(); n != ahead {
			return fmt.Errorf("%d of %d were closed", n, ahead)
		}
		return nil
	})
	var calls sync.WaitGroup
	for range 2 * ahead {
		calls.Go(func() { ours.call(t) })
	}
	calls.Wait()
	if status, err := rawCallTo(at, "http://nobody.test.internal/"); err != nil || status != 404 {
		t.Errorf("the application's own call out: %d, %v", status, err)
	}
}

// alive are those that the other end has not closed.
func alive(conns []net.Conn) []net.Conn {
	return slices.DeleteFunc(slices.Clone(conns), func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	})
}
