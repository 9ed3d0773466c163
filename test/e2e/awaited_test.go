package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"signet.example/dev"
	"signet.example/test/meshtest"
)

// answered counts what one caller was answered, each 20 ms, by status and body.
type answered struct {
	mu   sync.Mutex
	by   map[string]int
	last string
}

func (a *answered) note(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by[what]++
	a.last = what
}

func (a *answered) times(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[what]
}

func (a *answered) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprint(a.by)
}

func callingAsWeb(t *testing.T, w *meshtest.World, url string) *answered {
	a, client := &answered{by: map[string]int{}}, w.Client("web")
	end, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(end); <-ended })
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
			resp, err := client.Get(url)
			if err != nil {
				a.note(err.Error())
				continue
			}
			body, _ := io.ReadAll(resp.Body) // a short one is another answer
			_ = resp.Body.Close()
			a.note(fmt.Sprintf("%d %.20s", resp.StatusCode, body))
		}
	}()
	return a
}

func saying(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

// TestABindingCountsFromTheFirstProxyOn: stock has not moved, and web, which has, calls it by its name. Its
// Binding takes nothing away, also over a restart of the server, until its first proxy is ready. From then
// on that is called, and nobody else when it is gone.
func TestABindingCountsFromTheFirstProxyOn(t *testing.T) {
	spare, err := dev.ReserveLoopback(3, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spare.Close() }) // the processes that used them have ended
	unmoved, bind, app := spare.Addresses[0], spare.Addresses[1], spare.Addresses[2]
	serveAppAt(t, fmt.Sprintf("%s:%d", unmoved, meshtest.AppPort), saying("unmoved"))
	serveAppAt(t, fmt.Sprintf("%s:%d", app, meshtest.AppPort), saying("moved"))
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "stock"),
			strings.Replace(meshtest.VirtualNode("stock", ""), meshtest.HostOf("stock"), unmoved, 1), meshtest.ServiceOfNode("stock", "stock")),
	})
	const before, after = "200 unmoved", "200 moved"
	url := "http://" + meshtest.HostOf("stock") + "/"
	w.AwaitRoute("web", url)
	calls := callingAsWeb(t, w, url)
	more := func(what string, n int) {
		t.Helper()
		from := calls.times(what)
		eventually(t, 60*time.Second, fmt.Sprintf("%d more %s of %s", n, what, calls), func() bool { return calls.times(what) >= from+n })
	}
	more(before, 10)

	w.Apply("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: stock}\nspec: {group: hosts, mesh: test, virtualNode: stock, selectors: [\"signet:proxy:stock\"]}\n")
	more(before, 50)
	if out, _ := w.CLI("check"); !strings.Contains(out, "SIG045") || !strings.Contains(out, "test/stock") {
		t.Errorf("check does not say that the Binding does not count yet:\n%s", out)
	}
	w.KillServer()
	w.StartServer()
	w.Await("the agent", 60*time.Second, func() error { return w.AgentConnected(true) })
	more(before, 50)

	config, _ := anotherHost(t, w, "second", fmt.Sprintf("- {name: stock, mesh: test, virtual_node: stock, bind: %s, app: %s, concurrency: 1}\n", bind, app))
	second := w.Run("second", w.Program(), "agent", "--config", config)
	more(after, 20)
	if got := calls.String(); strings.Count(got, ":") != 2 {
		t.Errorf("it was answered %s", got)
	}
	if out, _ := w.CLI("check"); strings.Contains(out, "SIG045") {
		t.Errorf("check says that the Binding does not count:\n%s", out)
	}
	was := calls.times(before)
	second.Stop()
	eventually(t, 60*time.Second, "calls fail", func() bool { calls.mu.Lock(); defer calls.mu.Unlock(); return strings.HasPrefix(calls.last, "503") })
	time.Sleep(2 * time.Second) // longer than it takes to have another configuration
	if n := calls.times(before) - was; n > 0 {
		t.Errorf("%d calls of what is in the mesh went out of it when its proxy was gone", n)
	}
}
