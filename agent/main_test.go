package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"signet.example/agent/authzproc"
)

// TestMain is also the authz process: the agents under test start their own
// program again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "authz" {
		if err := authzproc.Run(context.Background(), slog.New(slog.NewJSONHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "connect" {
		connectAgain(os.Args[2])
	}
	goleak.VerifyTestMain(m)
}
