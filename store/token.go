package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// PutToken stores the hash of a join token, bound to a node group. The token
// itself is never seen here.
func (s *Store) PutToken(ctx context.Context, hash []byte, group string, expires time.Time) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (hash, grp, expires) VALUES (?, ?, ?)`,
			blob(hash), group, expires.UnixNano())
		return err
	})
	if isConstraint(err) {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("store join token of group %q: %w", group, err)
	}
	return nil
}

// HasToken reports whether a token can be used now. It writes nothing and waits for
// nobody who does.
func (s *Store) HasToken(ctx context.Context, hash []byte, now time.Time) (bool, error) {
	_, err := s.tokenGroup(ctx, hash, now)
	if errors.Is(err, ErrToken) {
		return false, nil
	}
	return err == nil, err
}

// tokenGroup is the group of a token that can be used now, else ErrToken.
func (s *Store) tokenGroup(ctx context.Context, hash []byte, now time.Time) (string, error) {
	var group string
	err := s.read.QueryRowContext(ctx, `SELECT grp FROM tokens WHERE hash = ? AND used IS NULL AND expires > ?`, blob(hash), now.UnixNano()).Scan(&group)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrToken
	}
	if err != nil {
		return "", fmt.Errorf("look up a join token: %w", err)
	}
	return group, nil
}

// UseToken consumes a token and returns its group, exactly once whatever runs
// beside it: one statement tests and marks, and on return the mark is durable.
// The row stays, so that a second use is told from nothing in the audit trail
// but never to the caller.
func (s *Store) UseToken(ctx context.Context, hash []byte, now time.Time) (string, error) {
	// Whoever guesses tokens does not get between those who write.
	group, err := s.tokenGroup(ctx, hash, now)
	if err != nil {
		return "", err
	}
	err = s.update(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx,
			`UPDATE tokens SET used = ?1 WHERE hash = ?2 AND used IS NULL AND expires > ?1 RETURNING grp`,
			now.UnixNano(), blob(hash)).Scan(&group)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrToken
	}
	if err != nil {
		return "", fmt.Errorf("use join token: %w", err)
	}
	return group, nil
}
