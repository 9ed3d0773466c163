package adsload_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/test/adsload"
	"signet.example/test/meshtest"
	xdstest "signet.example/test/xds"
)

// memory of a process in MiB: a line of its status (proc_pid_status(5)).
func memory(t *testing.T, pid int, line string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1024
		}
	}
	t.Fatalf("no %s", line)
	return 0
}

// Each host has a proxy of each of 50 virtual nodes, at addresses of its own, so that each
// stream has a view of its own; a virtual node calls ten services.
func TestAllStreamsOfAMeshComeBackToAServerThatWasKilled(t *testing.T) {
	const nodes, each = 200, 50
	hosts := meshtest.Soak(4, 200)
	w := meshtest.Start(t, meshtest.Options{NoAgent: true, Lifetime: time.Hour, Policy: map[string]string{"none": ""}})
	docs := []string{meshtest.Mesh()}
	for i := range nodes {
		var calls []string
		for j := range 10 {
			calls = append(calls, fmt.Sprintf("s-%d", (i+j*97+1)%nodes))
		}
		name := fmt.Sprintf("n-%d", i)
		docs = append(docs, meshtest.VirtualNode(name, "", calls...), meshtest.ServiceOfNode(fmt.Sprintf("s-%d", i), name),
			fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s}\nspec: {group: hosts, mesh: test, virtualNode: %s, selectors: [\"unix:uid:1\", \"unix:path:/%s\"]}\n", name, name, name))
	}
	w.Apply(meshtest.Join(docs...))
	joined := make([]*meshtest.Host, hosts)
	for i := range joined {
		joined[i] = w.JoinHost()
	}
	load := adsload.Load{
		Streams: hosts * each, Types: append(append([]string{}, adsload.Types...), ads.ViewType), AtOnce: true,
		Conn: func(n int) (grpc.ClientConnInterface, error) { return joined[n/each].Conn(), nil },
		Node: func(n int) *corev3.Node {
			shape, host := xdstest.Shape, n/each
			shape.Bind = fmt.Sprintf("10.1.%d.%d", host, n%each+1)
			shape.Egress = xdstest.EgressOn("127.0.0.1")
			return &corev3.Node{Id: proxy.Node("test", fmt.Sprintf("n-%d", n%nodes)).String(), Metadata: shape.Metadata()}
		},
	}.Start(t.Context())
	defer load.Stop()
	await := func(what string) {
		t.Helper()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		if err := load.AwaitAll(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: %d streams of %d hosts have everything after %s; the server has %d MiB, at most %d", what, hosts*each, hosts, time.Since(began).Round(time.Millisecond),
			memory(t, w.Server.PID(), "VmRSS"), memory(t, w.Server.PID(), "VmHWM"))
	}
	await("first")
	w.Server.Kill()
	began := time.Now()
	for load.Whole() > 0 && time.Since(began) < 10*time.Second {
		time.Sleep(time.Millisecond)
	}
	w.StartServer()
	await("back")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("all were back after %s", took)
	}
	if m := memory(t, w.Server.PID(), "VmHWM"); m > 1536 {
		t.Errorf("the server had %d MiB", m)
	}
}
