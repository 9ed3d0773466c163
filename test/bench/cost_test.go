//go:build bench

package bench

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"signet.example/test/meshtest"
)

// TestBenchCost measures what a change costs where there is much that it does not
// concern. The work itself is counted by tests of server, mesh and internal/ordered.
func TestBenchCost(t *testing.T) {
	const services, entries, idle = 1000, 10_000, 20 * time.Second
	w := meshtest.Start(t, meshtest.Options{NoAgent: true, Lifetime: time.Hour, Manifests: record})
	applied := func(figure, goal string, docs []string) []row {
		all, beside := meshtest.Join(docs...), (yardstick(t)+yardstick(t)+yardstick(t))/3
		began, before := time.Now(), cpu(t, w.Server.PID())
		w.Apply(all)
		took, used := time.Since(began), cpu(t, w.Server.PID())-before
		time.Sleep(5 * time.Second) // what it leaves to be collected
		return []row{
			{figure, fmt.Sprintf("%s, CPU %s", ms(took), ms(used)), fmt.Sprintf("CPU %s yardstick", ms(beside)), fmt.Sprintf("%.2f", float64(used)/float64(beside)), goal},
			{"server's memory 5 s later", fmt.Sprintf("%.0f MiB", rss(t, w.Server.PID())), "", "", ""},
		}
	}
	plain, docs := []string{meshtest.Mesh()}, []string{}
	for i := range services {
		var backends []string
		for j := range 10 {
			backends = append(backends, fmt.Sprintf("s%d", (i+j*97+1)%services))
		}
		node := fmt.Sprintf("n%d", i)
		plain = append(plain, meshtest.VirtualNode(node, "", backends...), meshtest.ServiceOfNode(fmt.Sprintf("s%d", i), node))
		docs = append(docs, meshtest.VirtualNode(node+"b", ""),
			meshtest.Weighted(fmt.Sprintf("r%d", i), node, 90, node+"b", 10), meshtest.ServiceOfRouter(fmt.Sprintf("s%d", i), fmt.Sprintf("r%d", i)))
	}
	rows := applied("the whole mesh, a node each, until the apply call returns", "≤ 1.5 s", plain)
	rows[1].goal = "≤ 150 MiB"
	rows = append(rows, applied("a router and a second node for each of them, until the apply call returns", "", docs)...)
	var weight []time.Duration
	for i := range 40 {
		node := fmt.Sprintf("n%d", i+100)
		began := time.Now()
		w.Apply(meshtest.Weighted(fmt.Sprintf("r%d", i+100), node, 50, node+"b", 50))
		weight = append(weight, time.Since(began))
	}
	csrs := pool(t, 64)
	few := rate(t, 8, issue(t, w, csrs, 1))
	docs = nil
	for i := range entries {
		docs = append(docs, fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: e%d}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/test/e%d\", selectors: [\"unix:uid:%d\"]}\n", i, i, i+2))
		if len(docs) == 2500 {
			w.Apply(meshtest.Join(docs...))
			docs = nil
		}
	}
	many := rate(t, 8, issue(t, w, csrs, 1))
	before := cpu(t, w.Server.PID())
	time.Sleep(idle)
	busy := float64(cpu(t, w.Server.PID())-before) / float64(idle) * 100
	report(t, "Cost by change: a mesh of 1,000 services of 10 backends; from the third row with a router and two nodes each", append(rows, []row{
		{"one weight, until the apply call returns, p50 of 40", ms(percentile(weight, 0.5)), "", "", "≤ 60 ms"},
		{"the slowest of 40", ms(percentile(weight, 0.99)), "", "", ""},
		{"issued, 8 callers, group of 10,000 entries", fmt.Sprintf("%.0f/s", many.perSecond), fmt.Sprintf("group of one: %.0f/s", few.perSecond), fmt.Sprintf("%.2f", many.perSecond/few.perSecond), "≥ 0.9"},
		{"server, idle CPU, with all of it", fmt.Sprintf("%.2f %% of a core", busy), "", "", ""},
	}...))
}

// yardstick is the processor time of work that is none of ours and is the same in every run: 200
// clusters and all that belongs to them made, encoded and kept, a hundred times. Where others use
// the host's memory and caches it takes longer, as an apply does, which works alike.
func yardstick(t *testing.T) time.Duration {
	t.Helper()
	var kept []adsConfig
	before := cpu(t, os.Getpid())
	for i := range 100 {
		c := newADSConfig(200, i, 1)
		for _, byName := range c {
			for _, m := range byName {
				_, err := proto.Marshal(m)
				must(t, err)
			}
		}
		kept = append(kept, c)
	}
	used := cpu(t, os.Getpid()) - before
	runtime.KeepAlive(kept)
	return used
}
