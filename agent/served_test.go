package agent

import (
	"testing"

	"signet.example/agent/limits"
)

// Each socket has a tally of its own, and together they leave files for other things.
func TestTheLimitsAreForAsManySocketsAsTheAgentServes(t *testing.T) {
	host, err := listen(t.Context(), Config{SocketDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer host.close()
	sockets := 0
	for _, l := range host.all() {
		if *l != nil {
			sockets++
		}
	}
	if sockets != limits.Sockets {
		t.Errorf("%d sockets are served, and limits are for %d", sockets, limits.Sockets)
	}
}
