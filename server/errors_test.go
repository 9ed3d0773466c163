package server

import (
	"errors"
	"strings"
	"testing"
)

func TestAnAgentIsToldNothingOfTheInside(t *testing.T) {
	inside := errors.New("sqlite: /var/lib/signet/store.db: disk I/O error")
	if err := agentError(inside); strings.Contains(err.Error(), "sqlite") {
		t.Errorf("an agent is told: %v", err)
	}
	if err := adminError(inside); !strings.Contains(err.Error(), "sqlite") {
		t.Errorf("the operator is told: %v", err)
	}
}
