package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"signet.example/internal/plain"
)

// pruneBatch bounds the rows that one transaction deletes: other writers wait for
// it. It is smaller in tests.
var pruneBatch int64 = 5000

// Retention says up to which time rows are no longer kept.
type Retention struct {
	// Audit is for the audit trail, and for join tokens that ended before.
	Audit time.Time
	// Changes is for the outbox of changes. The newest revision's are kept.
	Changes time.Time
}

// Prune deletes what is older and returns how many rows that were. Each span that
// goes leaves a row in the audit trail, in the same transaction: what the trail
// once held is never gone without a trace. The space is used again for what
// comes; the file does not get smaller.
func (s *Store) Prune(ctx context.Context, keep Retention) (int64, error) {
	var all int64
	for _, table := range []struct {
		name  string
		prune func(context.Context, *sql.Tx, Retention) (int64, string, error)
	}{{"audit", pruneAudit}, {"changes", pruneChanges}, {"tokens", pruneTokens}} {
		for {
			var n int64
			err := s.update(ctx, func(tx *sql.Tx) (err error) {
				var what string
				if n, what, err = table.prune(ctx, tx, keep); err != nil || n == 0 {
					return err
				}
				return audit(ctx, tx, time.Now().UnixNano(), "server", "prune", what)
			})
			if err != nil {
				return all, fmt.Errorf("delete old rows of %s: %w", table.name, err)
			}
			all += n
			if n < pruneBatch {
				break
			}
		}
	}
	return all, nil
}

// pruneAudit deletes from the beginning on, so that what remains has no gap.
func pruneAudit(ctx context.Context, tx *sql.Tx, keep Retention) (int64, string, error) {
	var n int64
	var first, last, from, to sql.NullInt64
	err := tx.QueryRowContext(ctx, `SELECT count(*), min(sequence), max(sequence), min(at), max(at) FROM
		(SELECT sequence, at FROM audit WHERE sequence <
			coalesce((SELECT sequence FROM audit WHERE at >= ?1 ORDER BY sequence LIMIT 1), 9223372036854775807)
		 ORDER BY sequence LIMIT ?2)`, keep.Audit.UnixNano(), pruneBatch).Scan(&n, &first, &last, &from, &to)
	if err != nil || n == 0 {
		return 0, "", err
	}
	actions, err := collect(func(rows *sql.Rows) (string, error) {
		var action string
		var count int64
		err := rows.Scan(&action, &count)
		return fmt.Sprintf("%s %d", action, count), err
	}, func() (*sql.Rows, error) {
		return tx.QueryContext(ctx, `SELECT action, count(*) FROM audit WHERE sequence <= ? GROUP BY action ORDER BY action`, last.Int64)
	})
	if err != nil {
		return 0, "", err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM audit WHERE sequence <= ?`, last.Int64)
	return n, fmt.Sprintf("audit: %d rows, %d to %d, of %s to %s: %s",
		n, first.Int64, last.Int64, plain.UTC(time.Unix(0, from.Int64)), plain.UTC(time.Unix(0, to.Int64)), strings.Join(actions, ", ")), err
}

// pruneChanges keeps of each object that is there the newest row, however old: what there
// was in any revision that is left is known.
func pruneChanges(ctx context.Context, tx *sql.Tx, keep Retention) (int64, string, error) {
	_, err := tx.ExecContext(ctx, `UPDATE counter SET history = max(history,
		(SELECT coalesce(max(revision), 0) FROM changes WHERE at < ?1 AND revision < (SELECT revision FROM counter)))`, keep.Changes.UnixNano())
	if err != nil {
		return 0, "", err
	}
	r, err := tx.ExecContext(ctx, `DELETE FROM changes WHERE (revision, ordinal) IN
		(SELECT revision, ordinal FROM changes c WHERE at < ?1 AND revision < (SELECT revision FROM counter) AND
			(deleted OR kind IN (?3, ?4, ?5) OR EXISTS (SELECT 1 FROM changes n WHERE n.kind = c.kind AND n.mesh = c.mesh AND n.name = c.name
				AND (n.revision, n.ordinal) > (c.revision, c.ordinal) AND n.at < ?1 AND n.revision < (SELECT revision FROM counter)))
		 ORDER BY revision, ordinal LIMIT ?2)`,
		keep.Changes.UnixNano(), pruneBatch, KindAgent, KindBan, KindPolicyRevision)
	if err != nil {
		return 0, "", err
	}
	n, err := r.RowsAffected()
	return n, fmt.Sprintf("changes: %d rows from before %s", n, plain.UTC(keep.Changes)), err
}

// pruneTokens: one that has ended says the same as one that never was.
func pruneTokens(ctx context.Context, tx *sql.Tx, keep Retention) (int64, string, error) {
	r, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE expires < ? LIMIT ?)`,
		keep.Audit.UnixNano(), pruneBatch)
	if err != nil {
		return 0, "", err
	}
	n, err := r.RowsAffected()
	return n, fmt.Sprintf("tokens: %d that ended before %s", n, plain.UTC(keep.Audit)), err
}
