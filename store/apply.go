package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Apply makes all writes or none, under one new revision. On return they are
// durable, in the changes outbox and in the audit trail, which also has what was
// asked for: a write that left no row did not happen. Deleting what is not
// there is ErrNotFound. Without writes nothing happens and the present revision
// is returned.
//
// The writes were checked against what was stored in revision basis: where an object was
// written or deleted after it, by whoever, that is ErrConflict.
func (s *Store) Apply(ctx context.Context, actor, asked string, basis uint64, writes []Write) (uint64, error) {
	if len(writes) == 0 {
		return s.revision.Load(), nil
	}
	revision, err := s.configure(ctx, actor, func(c *change) error {
		if err := c.on(ctx, basis); err != nil {
			return err
		}
		for _, w := range writes {
			if err := c.write(ctx, w); err != nil {
				return err
			}
		}
		return c.audit(ctx, "apply", asked+": "+describe(writes))
	})
	if err != nil {
		return 0, fmt.Errorf("apply %d objects: %w", len(writes), err)
	}
	return revision, nil
}

// change is one configuration write under way: a transaction that has taken a
// revision.
type change struct {
	tx       *sql.Tx
	actor    string
	revision uint64
	ordinal  int
	at       int64
	prepared map[string]*sql.Stmt // of tx, which closes them
}

// exec runs a statement that is prepared once for all writes of the change.
func (c *change) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	stmt := c.prepared[query]
	if stmt == nil {
		var err error
		if stmt, err = c.tx.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		c.prepared[query] = stmt
	}
	return stmt.ExecContext(ctx, args...)
}

// configure runs f in a transaction that takes the next revision. The counter
// is one row in the same transaction, so a failed write leaves no gap.
func (s *Store) configure(ctx context.Context, actor string, f func(*change) error) (uint64, error) {
	c := &change{actor: actor, at: time.Now().UnixNano(), prepared: map[string]*sql.Stmt{}}
	err := s.update(ctx, func(tx *sql.Tx) error {
		c.tx = tx
		const next = `UPDATE counter SET revision = revision + 1 RETURNING revision`
		if err := tx.QueryRowContext(ctx, next).Scan(&c.revision); err != nil {
			return fmt.Errorf("take a revision: %w", err)
		}
		return f(c)
	})
	if err != nil {
		return 0, err
	}
	s.advance(c.revision)
	return c.revision, nil
}

// on refuses a write that was checked against less than what is stored.
func (c *change) on(ctx context.Context, basis uint64) error {
	var newer uint64
	err := c.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(revision), 0) FROM changes WHERE revision > ? AND kind NOT IN (?, ?, ?)`,
		int64(min(basis, 1<<62)), KindAgent, KindBan, KindPolicyRevision).Scan(&newer)
	if err != nil {
		return fmt.Errorf("read what changed after revision %d: %w", basis, err)
	}
	if newer > 0 {
		return fmt.Errorf("it was checked against revision %d, and objects changed in revision %d: %w", basis, newer, ErrConflict)
	}
	return nil
}

func (c *change) write(ctx context.Context, w Write) error {
	name := fmt.Sprintf("%s %s/%s", w.Kind, w.Mesh, w.Name)
	if !w.Delete {
		_, err := c.exec(ctx,
			`INSERT INTO objects (kind, mesh, name, manifest, revision, created, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)
			 ON CONFLICT DO UPDATE SET manifest = excluded.manifest, revision = excluded.revision, owner = excluded.owner`,
			w.Kind, w.Mesh, w.Name, blob(w.Manifest), c.revision, w.Owner)
		if err != nil {
			return fmt.Errorf("put %s: %w", name, err)
		}
		return c.outbox(ctx, w.Object, false)
	}
	r, err := c.exec(ctx,
		`DELETE FROM objects WHERE kind = ? AND mesh = ? AND name = ?`, w.Kind, w.Mesh, w.Name)
	if err := one(r, err); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	w.Manifest = nil
	return c.outbox(ctx, w.Object, true)
}

func (c *change) outbox(ctx context.Context, o Object, deleted bool) error {
	_, err := c.exec(ctx,
		`INSERT INTO changes (revision, ordinal, kind, mesh, name, manifest, deleted, at, actor, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.revision, c.ordinal, o.Kind, o.Mesh, o.Name, blob(o.Manifest), deleted, c.at, c.actor, o.Owner)
	if err != nil {
		return fmt.Errorf("note the change of %s %s/%s: %w", o.Kind, o.Mesh, o.Name, err)
	}
	c.ordinal++
	return nil
}

func (c *change) audit(ctx context.Context, action, detail string) error {
	return audit(ctx, c.tx, c.at, c.actor, action, detail)
}

// Objects returns everything stored and the revision that it is of, from one
// consistent read.
func (s *Store) Objects(ctx context.Context) ([]Object, uint64, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, fmt.Errorf("read objects: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // a read has nothing to keep
	var revision uint64
	if err := tx.QueryRowContext(ctx, `SELECT revision FROM counter`).Scan(&revision); err != nil {
		return nil, 0, fmt.Errorf("read objects: revision: %w", err)
	}
	objects, err := collect(func(rows *sql.Rows) (o Object, err error) {
		err = rows.Scan(&o.Kind, &o.Mesh, &o.Name, &o.Manifest, &o.Revision, &o.Created, &o.Owner)
		return o, err
	}, func() (*sql.Rows, error) {
		return tx.QueryContext(ctx, `SELECT kind, mesh, name, manifest, revision, created, owner FROM objects ORDER BY kind, mesh, name`)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read objects: %w", err)
	}
	return objects, revision, nil
}

// describe names what an apply wrote, for the audit trail.
func describe(writes []Write) string {
	b := make([]byte, 0, 64*len(writes))
	for i, w := range writes {
		if i > 0 {
			b = append(b, "; "...)
		}
		verb := "put"
		if w.Delete {
			verb = "delete"
		}
		b = fmt.Appendf(b, "%s %q %q/%q", verb, w.Kind, w.Mesh, w.Name)
	}
	return string(b)
}

// blob keeps an empty value from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// one turns "no row was touched" into ErrNotFound.
func one(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrNotFound
	}
	return nil
}

// collect reads all rows of a query.
func collect[T any](scan func(*sql.Rows) (T, error), query func() (*sql.Rows, error)) ([]T, error) {
	rows, err := query()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err below tells what went wrong
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
