package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// PutRevision stores a policy revision as the newest, under a new revision of
// the store; the outbox gets a row of KindPolicyRevision.
func (s *Store) PutRevision(ctx context.Context, r PolicyRow) error {
	_, err := s.configure(ctx, "server", func(c *change) error {
		_, err := c.tx.ExecContext(ctx,
			`INSERT INTO policy_revisions (revision, id, source, commit_, body, at) VALUES (?, ?, ?, ?, ?, ?)`,
			c.revision, r.ID, r.Source, r.Commit, blob(r.Body), r.At.UnixNano())
		if err != nil {
			return err
		}
		if err := c.outbox(ctx, Object{Kind: KindPolicyRevision, Name: r.ID}, false); err != nil {
			return err
		}
		return c.audit(ctx, "policy-revision", fmt.Sprintf("%q from %q at %q", r.ID, r.Source, r.Commit))
	})
	if err != nil {
		return fmt.Errorf("store policy revision %q: %w", r.ID, err)
	}
	return nil
}

// LastRevision returns the policy revision stored last; ErrNotFound if none was.
func (s *Store) LastRevision(ctx context.Context) (PolicyRow, error) {
	var r PolicyRow
	var at int64
	err := s.read.QueryRowContext(ctx,
		`SELECT id, source, commit_, body, at FROM policy_revisions ORDER BY revision DESC LIMIT 1`).
		Scan(&r.ID, &r.Source, &r.Commit, &r.Body, &at)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return PolicyRow{}, fmt.Errorf("last policy revision: %w", err)
	}
	r.At = time.Unix(0, at).UTC()
	return r, nil
}
