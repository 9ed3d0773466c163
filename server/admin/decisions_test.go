package admin_test

import (
	"strings"
	"testing"

	"signet.example/api"
)

func TestAListOfDecisionsHasALimit(t *testing.T) {
	d := newDesk(t)
	for limit, want := range map[int32]int64{0: 100, 7: 7, 500: 500} {
		answer, err := d.admin.Decisions(t.Context(), &api.DecisionsListRequest{Filter: &api.DecisionFilter{Source: "shop/web", Limit: limit}})
		if err != nil || answer.GetDecisions()[0].GetDurationMicros() != want || answer.GetDecisions()[0].GetId() != "shop/web" {
			t.Errorf("limit %d: %v %v", limit, answer, err)
		}
	}
	if answer, err := d.admin.Decisions(t.Context(), &api.DecisionsListRequest{}); err != nil || answer.GetDecisions()[0].GetDurationMicros() != 100 {
		t.Errorf("no filter: %v %v", answer, err)
	}
	for _, limit := range []int32{-1, 501} {
		if _, err := d.admin.Decisions(t.Context(), &api.DecisionsListRequest{Filter: &api.DecisionFilter{Limit: limit}}); err == nil || !strings.Contains(err.Error(), "must be 1 to 500") {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}
