package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// errClosed is what waiters get when the store closes under them.
var errClosed = errors.New("store is closed")

// Changes returns every change of a revision greater than after, in order. A
// revision's rows are never split.
func (s *Store) Changes(ctx context.Context, after uint64) ([]Change, error) {
	changes, err := collect(func(rows *sql.Rows) (c Change, err error) {
		var at int64
		err = rows.Scan(&c.Revision, &c.Kind, &c.Mesh, &c.Name, &c.Manifest, &c.Deleted, &at, &c.Owner)
		c.At = time.Unix(0, at).UTC()
		return c, err
	}, func() (*sql.Rows, error) {
		return s.read.QueryContext(ctx,
			`SELECT revision, kind, mesh, name, manifest, deleted, at, owner FROM changes
			 WHERE revision > ? ORDER BY revision, ordinal`, int64(min(after, 1<<62)))
	})
	if err != nil {
		return nil, fmt.Errorf("read changes after revision %d: %w", after, err)
	}
	return changes, nil
}

// Revision is the last committed one.
func (s *Store) Revision() uint64 { return s.revision.Load() }

// Wait blocks until a revision greater than after is committed and returns it.
// It is woken in process: it never polls the database.
func (s *Store) Wait(ctx context.Context, after uint64) (uint64, error) {
	for {
		now, moved := s.revision.Get()
		if now > after {
			return now, nil
		}
		select {
		case <-moved:
		case <-s.closed:
			return 0, errClosed
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// advance publishes a committed revision. Commits are ordered by SQLite, the
// calls here are not, so the greater one wins.
func (s *Store) advance(revision uint64) {
	s.revision.Update(func(last uint64) uint64 { return max(last, revision) })
}
