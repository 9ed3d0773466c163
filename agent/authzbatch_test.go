package agent_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/agent"
	"signet.example/authz"
)

func TestAllowedDecisionsWaitForOthersAndADenialDoesNot(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []authz.Record
		within  time.Duration
	}{
		{"allowed", []authz.Record{{ID: "1", Allowed: true}, {ID: "2", Allowed: true}}, agent.RecordDelay},
		{"denied", []authz.Record{{ID: "1", Allowed: true}, {ID: "2"}, {ID: "3", Allowed: true}}, 0},
		{"full", slices.Repeat([]authz.Record{{ID: "1", Allowed: true}}, agent.RecordBatch), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				got := agent.BatchOf(t.Context(), c.records)
				if len(got) != len(c.records) || time.Since(begun) != c.within {
					t.Errorf("%d of %d decisions after %s, want %s", len(got), len(c.records), time.Since(begun), c.within)
				}
			})
		})
	}
}
