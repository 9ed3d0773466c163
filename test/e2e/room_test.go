package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// unhurried is an application whose answers take so long that as many connections are needed as
// there are calls.
type unhurried struct{ http.Handler }

func (s unhurried) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(500 * time.Millisecond)
	s.Handler.ServeHTTP(w, r)
}

// TestConnectionsAtOneServicesAddressLeaveRoomForAllOthers: an application that opens more and
// more connections to one of its backends, and keeps them, takes none of what callers of its
// proxy have, nor of what it has itself at another backend's address.
func TestConnectionsAtOneServicesAddressLeaveRoomForAllOthers(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "web", "orders", "stock", "store"}, Apps: map[string]meshtest.App{"web": unhurried{meshtest.Echo("web")}}, ServiceAddresses: []string{"web"}, Readable: []string{"web"},
		Manifests: meshtest.Join(meshtest.Mesh(), "apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: test}\nspec: {serviceAddresses: {range: "+addressRange(t)+"}}\n",
			meshtest.VirtualNode("front", "", "web"), meshtest.VirtualNode("web", "", "orders", "stock", "store"), meshtest.VirtualNode("orders", ""), meshtest.VirtualNode("stock", ""), storeNode(""),
			meshtest.ServiceOfNode("web", "web"), meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("stock", "stock"), meshtest.ServiceOfNode("store", "store")),
	})
	const files, callers = 1512, 40 // of 250 connections for the ways in
	w.Agent.Kill()
	w.StartAgentWithFiles(files)
	w.AwaitProxies()
	startSpeaker(t, w.Nodes["store"].App)
	hosts := addressesOf(t, w, 4)
	at := func(service string) string {
		return fmt.Sprintf("%s:%d", hosts[meshtest.HostOf(service)], meshtest.AppPort)
	}
	called := func(service string) error {
		status, err := rawCallTo(at(service), "http://"+meshtest.HostOf(service)+"/cart")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s answered %d", service, status)
		}
		return err
	}
	w.AwaitRoute("front", webHost+"/")
	for _, service := range []string{"orders", "stock"} {
		w.Await("web calls "+service, 30*time.Second, func() error { return called(service) })
	}

	store := fmt.Sprintf("%s:%d", hosts[meshtest.HostOf("store")], storePort)
	w.Await("web speaks to the store", 30*time.Second, func() error { return hungUp(speak(store)) })
	floods := map[string]func() (net.Conn, error){
		"orders, by HTTP": func() (net.Conn, error) { return keptCall(at("orders"), "http://"+meshtest.HostOf("orders")+"/cart") },
		"store, by tcp":   func() (net.Conn, error) { return speak(store) },
	}
	counted := regexp.MustCompile(`(?m)^envoy_connection_limit_limited_connections (\d+)$`)
	limited := func() int {
		m := counted.FindStringSubmatch(scraped(t, w.Nodes["web"].ReadOnly()))
		if m == nil {
			return 0 // before there is one
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for what, open := range floods {
		t.Run(what, func(t *testing.T) {
			var kept []net.Conn
			end := func() {
				for _, c := range kept {
					_ = c.Close() // it may be closed
				}
			}
			defer end()
			refused, before := 0, limited()
			for range files / 3 {
				c, err := open()
				if err != nil {
					refused++
					continue
				}
				kept = append(kept, c)
			}
			t.Logf("%d connections are kept, %d were refused", len(kept), refused)
			if refused == 0 {
				t.Error("there is no bound")
			}
			var failed atomic.Int64
			var calls sync.WaitGroup
			for range callers {
				calls.Go(func() {
					if a, err := meshtest.Do(t, w.Client("front"), http.MethodGet, webHost+"/"); err != nil || a.Status != http.StatusOK {
						failed.Add(1)
						t.Logf("%d %s %v", a.Status, a.Body, err)
					}
				})
			}
			calls.Wait()
			if n := failed.Load(); n > 0 {
				t.Errorf("%d of %d calls that come in failed", n, callers)
			}
			if err := called("stock"); err != nil {
				t.Errorf("a call at another service's address: %v", err)
			}
			eventually(t, 10*time.Second, "a count of what was closed", func() bool { return limited() > before })
			end()
			w.Await("a connection at the service's address", 10*time.Second, func() error {
				c, err := open()
				if err == nil {
					err = c.Close()
				}
				return err
			})
		})
	}
}

// scraped is what a scraper has of a proxy.
func scraped(t *testing.T, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/stats/prometheus", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }() // read to its end
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// keptCall makes a call on a connection that is kept.
func keptCall(at, url string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return nil, err
	}
	answered := func() error {
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", url); err != nil {
			return err
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		if _, err = io.Copy(io.Discard, answer.Body); err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("answered %d", answer.StatusCode)
		}
		return err
	}
	if err := answered(); err != nil {
		_ = conn.Close() // it is of no use
		return nil, err
	}
	return conn, nil
}
