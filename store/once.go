package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// usedBatch is how many rows that have ended a use deletes at most: more than it adds.
const usedBatch = 8

// Used reports whether evidence was used up that has not ended. It writes nothing.
func (s *Store) Used(ctx context.Context, hash []byte, now time.Time) (used bool, err error) {
	var n int
	err = s.read.QueryRowContext(ctx, `SELECT COUNT(*) FROM used WHERE hash = ? AND until >= ?`, blob(hash), now.UnixNano()).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("look up evidence: %w", err)
	}
	return n > 0, nil
}

// UseOnce uses up evidence that is good once, and reports whether nobody had before,
// whatever runs beside it. On return that is durable. It is remembered until then; the caller
// refuses what has ended by itself.
func (s *Store) UseOnce(ctx context.Context, hash []byte, now, until time.Time) (first bool, err error) {
	err = s.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM used WHERE hash IN (SELECT hash FROM used WHERE until < ? ORDER BY until LIMIT ?)`, now.UnixNano(), usedBatch)
		if err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, `INSERT INTO used (hash, until) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING`, blob(hash), until.UnixNano())
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		first = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("use evidence up: %w", err)
	}
	return first, nil
}
