package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

var exchangeStat = regexp.MustCompile(`(?m)^(listener|cluster)\..*\.ssl\.curves\.([A-Za-z0-9-]+): ([0-9]+)$`)

// exchanges are the key exchanges that an Envoy has counted.
func exchanges(t *testing.T, w *meshtest.World, node string) map[string]int {
	t.Helper()
	counted := map[string]int{}
	for _, m := range exchangeStat.FindAllStringSubmatch(string(adminGet(t, w, node, `/stats?usedonly&filter=ssl.curves`)), -1) {
		n, err := strconv.Atoi(m[3])
		if err != nil {
			t.Fatal(err)
		}
		counted[m[2]] += n
	}
	return counted
}

// keyExchanges looks at every hop of the product: agent to server, Envoy to Envoy,
// and at somebody else's client, which falls back and is told of.
func keyExchanges(t *testing.T, w *meshtest.World) {
	var server, agent meshtest.Addresses
	var err error
	if server, err = w.Addresses(w.ServerDir()); err != nil {
		t.Fatal(err)
	}
	if agent, err = w.Addresses(filepath.Join(w.AgentDir())); err != nil {
		t.Fatal(err)
	}
	page := get(t, "http://"+server.Metrics+"/metrics")
	if !strings.Contains(page, `signet_server_handshakes_total{key_exchange="classical"} 0`) || strings.Contains(page, `signet_server_handshakes_total{key_exchange="post_quantum"} 0`) {
		t.Errorf("agent to server: %v", regexp.MustCompile("(?m)^signet_server_handshakes_total.*$").FindAllString(page, -1))
	}
	for _, node := range []string{"front", "orders", "stock"} {
		if got := exchanges(t, w, node); got["X25519MLKEM768"] == 0 || len(got) != 1 {
			t.Errorf("%s: Envoy counted %v", node, got)
		}
	}
	if out, _ := w.CLI("check"); strings.Contains(out, "classical-key-exchange") {
		t.Errorf("check: %s", out)
	}
	svid := members(t, w)["front"]
	dialer := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the key exchange is under test
		CurvePreferences:   []tls.CurveID{tls.X25519}, Certificates: []tls.Certificate{*svid},
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(w.Nodes["orders"].Bind, strconv.Itoa(meshtest.AppPort)))
	if err != nil {
		t.Fatalf("an older client: %v", err)
	}
	defer func() { _ = conn.Close() }() // its one request is answered
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("an older client: %v %q", err, answer)
	}
	w.Await("the one that fell back is told of", 10*time.Second, func() error {
		out, code := w.CLI("check")
		if !strings.Contains(out, "classical-key-exchange: proxy orders: 1 connections of callers") {
			return fmt.Errorf("exit %d: %s", code, out)
		}
		return nil
	})
	if page := get(t, "http://"+agent.Metrics+"/metrics"); !strings.Contains(page, `signet_agent_proxy_handshakes_total{key_exchange="classical",proxy="orders",side="callers"} 1`) {
		t.Error("the agent did not count it")
	}
}
