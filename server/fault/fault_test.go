package fault_test

import (
	"errors"
	"strings"
	"testing"

	"signet.example/server/fault"
)

func TestAnAgentIsToldNothingOfTheInside(t *testing.T) {
	inside := errors.New("sqlite: /var/lib/signet/store.db: disk I/O error")
	if err := fault.ToAgent(inside); strings.Contains(err.Error(), "sqlite") {
		t.Errorf("an agent is told: %v", err)
	}
	if err := fault.ToOperator(inside); !strings.Contains(err.Error(), "sqlite") {
		t.Errorf("the operator is told: %v", err)
	}
}
