package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrForgotten is returned for a revision of which it is not known any more what there was.
var ErrForgotten = errors.New("no longer known")

// Key names objects: an empty part stands for all.
type Key struct{ Kind, Mesh, Name string }

// Past is one object's change.
type Past struct {
	Change Change
	Actor  string // who asked for it; empty where that was not written down
	// New: before it, there was no such object.
	New bool
	// Before and OwnerBefore are what the object was until then; Before is of one revision alone.
	Before      []byte
	OwnerBefore string
}

// objectsOnly leaves out the changes that Apply does not write.
const objectsOnly = ` AND kind NOT IN ('` + KindAgent + `', '` + KindBan + `', '` + KindPolicyRevision + `')`

// History returns the changes of objects of the last n revisions in which one that is meant
// changed, the newest first, and the revision with which what is known begins; with at, those
// of that one revision, and only then with manifests: of many revisions they are large.
func (s *Store) History(ctx context.Context, of Key, at uint64, n int) (past []Past, since uint64, err error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, fmt.Errorf("read history: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // a read has nothing to keep
	if _, since, err = known(ctx, tx); err != nil {
		return nil, 0, fmt.Errorf("read history: %w", err)
	}
	past, err = collect(func(rows *sql.Rows) (p Past, err error) {
		var when int64
		err = rows.Scan(&p.Change.Revision, &p.Change.Kind, &p.Change.Mesh, &p.Change.Name, &p.Change.Manifest, &p.Change.Deleted, &when, &p.Actor, &p.Change.Owner,
			&p.New, &p.Before, &p.OwnerBefore)
		p.Change.At = time.Unix(0, when).UTC()
		return p, err
	}, func() (*sql.Rows, error) {
		const meant = `(?1 = '' OR kind = ?1) AND (?2 = '' OR mesh = ?2) AND (?3 = '' OR name = ?3) AND (?6 = 0 OR revision = ?6)` + objectsOnly
		return tx.QueryContext(ctx, `SELECT c.revision, c.kind, c.mesh, c.name, CASE WHEN ?6 = 0 THEN x'' ELSE c.manifest END, c.deleted, c.at, c.actor, c.owner,
			coalesce(p.deleted, 1), CASE WHEN ?6 = 0 THEN x'' ELSE coalesce(p.manifest, x'') END, coalesce(p.owner, '')
			FROM (SELECT * FROM changes WHERE revision IN
				(SELECT DISTINCT revision FROM changes WHERE revision >= ?4 AND `+meant+` ORDER BY revision DESC LIMIT ?5) AND `+meant+`) c
			LEFT JOIN changes p ON p.kind = c.kind AND p.mesh = c.mesh AND p.name = c.name AND (p.revision, p.ordinal) =
				(SELECT b.revision, b.ordinal FROM changes b WHERE b.kind = c.kind AND b.mesh = c.mesh AND b.name = c.name AND b.revision < c.revision
					ORDER BY b.revision DESC, b.ordinal DESC LIMIT 1)
			ORDER BY c.revision DESC, c.ordinal`, of.Kind, of.Mesh, of.Name, since, n, at)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read history: %w", err)
	}
	return past, since, nil
}

// known is the present revision, and the one with which what is known begins.
func known(ctx context.Context, tx *sql.Tx) (now, since uint64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT revision, history FROM counter`).Scan(&now, &since)
	return now, since, err
}

// Back returns the writes after which each object would be as it was in a revision, in the
// order of kind, mesh and name; Revision is the one that an object had then. What has not
// changed since is not among them. A revision that there was not yet is ErrNotFound, one
// of which it is not known any more ErrForgotten.
func (s *Store) Back(ctx context.Context, revision uint64) ([]Write, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", revision, err)
	}
	defer func() { _ = tx.Rollback() }() // a read has nothing to keep
	now, since, err := known(ctx, tx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read revision %d: %w", revision, err)
	case revision > now:
		return nil, fmt.Errorf("revision %d: the last one is %d: %w", revision, now, ErrNotFound)
	case revision < since:
		return nil, fmt.Errorf("revision %d: what is known begins with %d: %w", revision, since, ErrForgotten)
	}
	writes, err := collect(func(rows *sql.Rows) (w Write, err error) {
		err = rows.Scan(&w.Kind, &w.Mesh, &w.Name, &w.Revision, &w.Manifest, &w.Owner, &w.Delete)
		return w, err
	}, func() (*sql.Rows, error) {
		return tx.QueryContext(ctx, `SELECT o.kind, o.mesh, o.name, coalesce(c.revision, 0), coalesce(c.manifest, x''), coalesce(c.owner, ''), coalesce(c.deleted, 1)
			FROM (SELECT DISTINCT kind, mesh, name FROM changes WHERE revision > ?1`+objectsOnly+`) o
			LEFT JOIN changes c ON c.kind = o.kind AND c.mesh = o.mesh AND c.name = o.name AND (c.revision, c.ordinal) =
				(SELECT b.revision, b.ordinal FROM changes b WHERE b.kind = o.kind AND b.mesh = o.mesh AND b.name = o.name AND b.revision <= ?1
					ORDER BY b.revision DESC, b.ordinal DESC LIMIT 1)
			ORDER BY o.kind, o.mesh, o.name`, revision)
	})
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", revision, err)
	}
	// What was not there then and is not there now needs no write.
	there, err := collect(func(rows *sql.Rows) (k Key, err error) {
		err = rows.Scan(&k.Kind, &k.Mesh, &k.Name)
		return k, err
	}, func() (*sql.Rows, error) {
		return tx.QueryContext(ctx, `SELECT kind, mesh, name FROM objects WHERE revision > ?`, revision)
	})
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", revision, err)
	}
	left := make(map[Key]bool, len(there))
	for _, k := range there {
		left[k] = true
	}
	return slices.DeleteFunc(writes, func(w Write) bool { return w.Delete && !left[Key{w.Kind, w.Mesh, w.Name}] }), nil
}
