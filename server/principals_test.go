package server

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/attestation/nodes"
	"signet.example/server/fault"
	"signet.example/store"
)

func TestTheJoinsOfOneRoleAreBoundedAndTakeNothingFromAnothers(t *testing.T) {
	take := quota{newLimiters(joinsPerSecond, joinsBurst), rosterOf(t, store.Agent{ID: "web", Method: "aws_task", Selectors: []string{"aws_task:role:web"}}), func(string) nodes.Quota { return nodes.Quota{Most: 2} }}.Take
	for range joinsBurst {
		if err := take("aws_task:role:web", nil); err != nil {
			t.Fatal(err)
		}
	}
	err := take("aws_task:role:web", nil)
	s, _ := status.FromError(fault.ToAgent(err))
	if s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "aws_task:role:web joins more often than 20 times a second") || len(s.Details()) != 1 {
		t.Errorf("%v, and when there is more: %v", err, s.Details())
	}
	if err := take("aws_task:role:job", nil); err != nil {
		t.Errorf("another role: %v", err)
	}
}
