//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// TestBenchWayOut measures what it costs that only the application calls out: a
// new connection is looked up, a request on one that stands is not. The requests
// are for a host that the mesh does not know, so that nothing else is in them.
func TestBenchWayOut(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front", "back"}, Manifests: meshtest.Join(meshtest.Mesh(),
		meshtest.VirtualNode("front", "", "back"), meshtest.VirtualNode("back", ""), meshtest.ServiceOfNode("back", "back"))})
	w.AwaitRoute("front", "http://"+meshtest.HostOf("back")+"/")
	n, at := meshtest.Soak(2_000, 20_000), w.Nodes["front"].EgressAddress()

	asked, seconds := wayOutSeen(t, w)
	before := cpu(t, w.Agent.PID())
	var fresh []time.Duration
	for range n {
		began := time.Now()
		conn, r := dialWayOut(t, at)
		unknown(t, conn, r)
		fresh = append(fresh, time.Since(began))
		_ = conn.Close() // answered
	}
	spent := cpu(t, w.Agent.PID()) - before
	askedFresh, secondsFresh := wayOutSeen(t, w)

	conn, r := dialWayOut(t, at)
	defer func() { _ = conn.Close() }() // answered
	unknown(t, conn, r)
	askedKept, _ := wayOutSeen(t, w)
	var kept []time.Duration
	for range n {
		began := time.Now()
		unknown(t, conn, r)
		kept = append(kept, time.Since(began))
	}
	askedAfter, _ := wayOutSeen(t, w)

	lookup := time.Duration((secondsFresh - seconds) / (askedFresh - asked) * float64(time.Second))
	report(t, fmt.Sprintf("The way out: whose connection it is, %d of each", n), []row{
		{"new connection with one request, p50", micros(percentile(fresh, .5)), micros(percentile(kept, .5)) + " request on a kept one", "", ""},
		{"new connection with one request, p99", micros(percentile(fresh, .99)), micros(percentile(kept, .99)) + " request on a kept one", "", ""},
		{"of that, the agent's answer, mean", micros(lookup), "", "", "≤ 500 µs"},
		{"CPU of the agent, per new connection", micros(spent / time.Duration(n)), "", "", ""},
		{"questions, per new connection", fmt.Sprintf("%.2f", (askedFresh-asked)/float64(n)), "", "", "1"},
		{"questions, per request on a kept one", fmt.Sprintf("%.2f", (askedAfter-askedKept)/float64(n)), "", "", "0"},
	})
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) + " µs" }

func dialWayOut(t *testing.T, at string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// unknown asks for a host that the mesh does not know.
func unknown(t *testing.T, conn net.Conn, r *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET http://unknown.internal/ HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(r, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close() // read to its end
	}
	if err != nil || answer.StatusCode != 404 {
		t.Fatalf("%v %v", answer, err)
	}
}

// wayOutSeen is how often the agent was asked, and how long it took for all.
func wayOutSeen(t *testing.T, w *meshtest.World) (asked, seconds float64) {
	t.Helper()
	addresses, err := w.Addresses(w.AgentDir())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Get("http://" + addresses.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close() // read to its end
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) float64 {
		for line := range strings.Lines(string(body)) {
			if text, ok := strings.CutPrefix(line, name+" "); ok {
				v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
		}
		t.Fatalf("no %s", name)
		return 0
	}
	return value("signet_agent_wayout_seconds_count"), value("signet_agent_wayout_seconds_sum")
}
