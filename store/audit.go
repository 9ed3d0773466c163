package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Audit adds a line to the audit trail and returns when it is durable. The
// caller writes the intent before it acts and the result after.
func (s *Store) Audit(ctx context.Context, actor, action, detail string) error {
	return s.update(ctx, func(tx *sql.Tx) error {
		return audit(ctx, tx, time.Now().UnixNano(), actor, action, detail)
	})
}

func audit(ctx context.Context, tx *sql.Tx, at int64, actor, action, detail string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit (at, actor, action, detail) VALUES (?, ?, ?, ?)`,
		at, actor, action, detail)
	if err != nil {
		return fmt.Errorf("audit %s by %s: %w", action, actor, err)
	}
	return nil
}

// AuditTrail returns up to n lines with a sequence greater than after, in order.
func (s *Store) AuditTrail(ctx context.Context, after uint64, n int) ([]AuditRow, error) {
	rows, err := collect(func(rows *sql.Rows) (a AuditRow, err error) {
		var at int64
		err = rows.Scan(&a.Sequence, &at, &a.Actor, &a.Action, &a.Detail)
		a.At = time.Unix(0, at).UTC()
		return a, err
	}, func() (*sql.Rows, error) {
		return s.read.QueryContext(ctx,
			`SELECT sequence, at, actor, action, detail FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?`,
			int64(min(after, 1<<62)), n)
	})
	if err != nil {
		return nil, fmt.Errorf("read audit trail: %w", err)
	}
	return rows, nil
}
