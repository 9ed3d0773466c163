package agent

import (
	"context"
	"errors"
	"log/slog"
)

// Run is the agent until ctx ends.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	return errors.New("agent: not yet")
}

// RunAuthz is the authz process, on the descriptors 3 and 4 that the agent left it.
func RunAuthz(ctx context.Context, log *slog.Logger) error {
	return errors.New("authz: not yet")
}
