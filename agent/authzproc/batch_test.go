package authzproc

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/api"
	"signet.example/authz"
)

func TestAllowedDecisionsWaitForOthersAndADenialDoesNot(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []authz.Record
		within  time.Duration
	}{
		{"allowed", []authz.Record{{ID: "1", Allowed: true}, {ID: "2", Allowed: true}}, recordDelay},
		{"denied", []authz.Record{{ID: "1", Allowed: true}, {ID: "2"}, {ID: "3", Allowed: true}}, 0},
		{"full", slices.Repeat([]authz.Record{{ID: "1", Allowed: true}}, recordBatch), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				got := batchOf(t.Context(), c.records)
				if len(got) != len(c.records) || time.Since(begun) != c.within {
					t.Errorf("%d of %d decisions after %s, want %s", len(got), len(c.records), time.Since(begun), c.within)
				}
			})
		})
	}
}

// batchOf is the first batch of what the authz process sends of these records.
func batchOf(ctx context.Context, records []authz.Record) []*api.Decision {
	d := newDecider(slog.New(slog.DiscardHandler), nil)
	for _, r := range records {
		d.record(r)
	}
	return d.batch(ctx).GetDecisions()
}
