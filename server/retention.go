package server

import (
	"context"
	"log/slog"
	"time"

	"signet.example/store"
)

// pruneEvery is how often rows are looked for that are too old to keep.
const pruneEvery = time.Hour

// runRetention deletes what is too old to keep, until ctx ends.
func (s *server) runRetention(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		s.prune(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *server) prune(ctx context.Context) {
	now := s.clock()
	n, err := s.store.Prune(ctx, store.Retention{Audit: now.Add(-s.cfg.Retention.Audit), Changes: now.Add(-s.cfg.Retention.Changes)})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.log.WarnContext(ctx, "what is too old to keep was not deleted", slog.Any("err", err))
	case n > 0:
		s.log.InfoContext(ctx, "deleted what was too old to keep; the audit trail has a row for it", slog.Int64("rows", n))
	}
}
