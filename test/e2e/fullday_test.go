package e2e

import (
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// explainCeiling is five times the goal that make bench has, on whatever machine this is.
const explainCeiling = 5 * time.Second

// TestEachOfTwentyKindsIsExplainedOutOfAFullDay looks a day back, where an agent has kept all that
// it has room for, one kind after the other.
func TestEachOfTwentyKindsIsExplainedOutOfAFullDay(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{})
	w.Agent.Stop()
	day := w.FillDay()
	w.StartAgentWithoutToken()
	w.AwaitDay(day)
	ago := time.Now().UTC().Add(-23 * time.Hour).Format(time.RFC3339)
	var slowest time.Duration
	for i, kind := range day.Kinds {
		for _, when := range [][]string{{"--since", "24h"}, {"--at", ago}} {
			caller, node := day.Callers[i%len(day.Callers)], day.Nodes[i%len(day.Nodes)]
			found, took := w.Explain(caller, node, kind.Name, when...)
			for try := 0; (!found || took > explainCeiling) && try < 5; try++ { // where the host stood still an agent does not answer in time
				found, took = w.Explain(caller, node, kind.Name, when...)
			}
			if slowest = max(slowest, took); !found || took > explainCeiling {
				t.Errorf("%s from %s to %s, %v: found is %t, in %s", kind.Name, caller, node, when, found, took)
			}
		}
	}
	t.Logf("the slowest of %d took %s", 2*len(day.Kinds), slowest)
}
