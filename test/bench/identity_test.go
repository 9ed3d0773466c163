//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"signet.example/test/meshtest"
)

// TestBenchEntryToSVID measures from the begin of an apply of a new Entry to
// the SVID at a Workload API client whose stream is open.
func TestBenchEntryToSVID(t *testing.T) {
	base := fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: first}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/test/first\", selectors: [\"unix:uid:%d\"]}\n", os.Getuid())
	w := meshtest.Start(t, meshtest.Options{NoAgent: true, Manifests: base})
	w.StartAgent()
	watch := &watcher{updates: make(chan *workloadapi.X509Context, 64)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = workloadapi.WatchX509Context(ctx, watch, workloadapi.WithAddr("unix://"+filepath.Join(w.AgentDir(), "workload.sock"))) // ends with ctx
	}()
	<-watch.updates
	const rounds = 20
	var took []time.Duration
	for i := range rounds {
		id := fmt.Sprintf("spiffe://test.example/test/new-%d", i)
		began := time.Now()
		w.Apply(fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: new-%d}\nspec: {group: hosts, spiffeID: %q, selectors: [\"unix:uid:%d\"]}\n", i, id, os.Getuid()))
		for found := false; !found; {
			for _, svid := range (<-watch.updates).SVIDs {
				found = found || svid.ID.String() == id
			}
		}
		took = append(took, time.Since(began))
	}
	report(t, "A new registration reaches an open Workload API client", []row{
		{"apply of an Entry → SVID, p50 of 20", ms(percentile(took, 0.5)), "SPIRE 1.16-dev: 7.6 s (measured apart)", "", ""},
		{"the slowest of 20", ms(percentile(took, 0.99)), "SPIRE: 9.4 s", "", "≤ 100 ms p99"},
	})
}

type watcher struct{ updates chan *workloadapi.X509Context }

func (w *watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { w.updates <- c }
func (w *watcher) OnX509ContextWatchError(error)                  {}
