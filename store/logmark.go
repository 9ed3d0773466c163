package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// LogMark returns the newest position of the issuance log that was put here, the
// zero one if none was.
func (s *Store) LogMark(ctx context.Context) (LogMark, error) { return logMark(ctx, s.read) }

func logMark(ctx context.Context, db *sql.DB) (LogMark, error) {
	var m LogMark
	var sequence int64
	err := db.QueryRowContext(ctx, `SELECT sequence, hash FROM log_mark`).Scan(&sequence, &m.Hash)
	if errors.Is(err, sql.ErrNoRows) {
		return LogMark{}, nil
	}
	if err != nil {
		return LogMark{}, fmt.Errorf("read how far the issuance log was seen: %w", err)
	}
	m.Sequence = uint64(sequence) //nolint:gosec // it was written from one
	return m, nil
}

// PutLogMark keeps a position, and returns when it is durable. One that is not
// further than the one that is there changes nothing.
func (s *Store) PutLogMark(ctx context.Context, m LogMark) error {
	err := s.update(ctx, func(tx *sql.Tx) error { return putLogMark(ctx, tx, raiseLogMark, m) })
	if err != nil {
		return fmt.Errorf("keep how far the issuance log was seen: %w", err)
	}
	return nil
}

// ResetLogMark keeps a position in the place of whatever was there, with a row of
// the audit trail.
func (s *Store) ResetLogMark(ctx context.Context, actor, detail string, m LogMark) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := putLogMark(ctx, tx, resetLogMark, m); err != nil {
			return err
		}
		return audit(ctx, tx, time.Now().UnixNano(), actor, "accept-log", detail)
	})
	if err != nil {
		return fmt.Errorf("accept an issuance log: %w", err)
	}
	return nil
}

// The two ways of writing the one row.
const (
	resetLogMark = `INSERT INTO log_mark VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash`
	raiseLogMark = resetLogMark + ` WHERE excluded.sequence > sequence`
)

func putLogMark(ctx context.Context, tx *sql.Tx, statement string, m LogMark) error {
	_, err := tx.ExecContext(ctx, statement, int64(min(m.Sequence, 1<<62)), blob(m.Hash))
	return err
}
