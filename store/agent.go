package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// PutAgent stores an agent that joined, or joined again under the same id. It
// never lifts a ban. A host key, or evidence, that is another agent's is ErrConflict.
func (s *Store) PutAgent(ctx context.Context, a Agent) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx,
			`INSERT INTO agents (id, grp, hostname, host_key, joined, banned, method, selectors, evidence, address) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			 ON CONFLICT (id) DO UPDATE SET grp = excluded.grp, hostname = excluded.hostname,
			   host_key = excluded.host_key, joined = excluded.joined, banned = max(banned, excluded.banned),
			   method = excluded.method, selectors = excluded.selectors, evidence = excluded.evidence, address = excluded.address`,
			a.ID, a.Group, a.Hostname, blob(a.HostKey), a.Joined.UnixNano(), a.Banned, a.Method, strings.Join(a.Selectors, "\n"), blob(a.Evidence), a.Address)
		return err
	})
	if isConstraint(err) {
		err = fmt.Errorf("its host key or its evidence is another agent's: %w", ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("store agent %q: %w", a.ID, err)
	}
	s.joined.Update(func(n uint64) uint64 { return n + 1 })
	return nil
}

// Joined counts how often an agent was put, by whoever, and returns what is closed when
// one is put again. A join takes no revision.
func (s *Store) Joined() (uint64, <-chan struct{}) { return s.joined.Get() }

const agentColumns = `SELECT id, grp, hostname, host_key, joined, banned, ban_reason, method, selectors, evidence, address FROM agents `

func scanAgent(scan func(...any) error) (a Agent, err error) {
	var joined int64
	var selectors string // one a line: none has a line break in it
	err = scan(&a.ID, &a.Group, &a.Hostname, &a.HostKey, &joined, &a.Banned, &a.BanReason, &a.Method, &selectors, &a.Evidence, &a.Address)
	a.Joined = time.Unix(0, joined).UTC()
	if selectors != "" {
		a.Selectors = strings.Split(selectors, "\n")
	}
	if len(a.Evidence) == 0 {
		a.Evidence = nil
	}
	return a, err
}

// AgentByKey returns the agent that enrolled the host key with this hash.
func (s *Store) AgentByKey(ctx context.Context, hostKey []byte) (Agent, error) {
	a, err := scanAgent(s.read.QueryRowContext(ctx, agentColumns+`WHERE host_key = ?`, blob(hostKey)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Agent{}, fmt.Errorf("agent of a host key: %w", err)
	}
	return a, nil
}

// Agents returns all agents, ordered by id.
func (s *Store) Agents(ctx context.Context) ([]Agent, error) {
	agents, err := collect(func(rows *sql.Rows) (Agent, error) { return scanAgent(rows.Scan) },
		func() (*sql.Rows, error) { return s.read.QueryContext(ctx, agentColumns+`ORDER BY id`) })
	if err != nil {
		return nil, fmt.Errorf("read agents: %w", err)
	}
	return agents, nil
}

// BanAgent bans an agent for good. It takes a revision, since others must be
// told: the outbox gets a row of KindBan.
func (s *Store) BanAgent(ctx context.Context, actor, id, reason string) error {
	_, err := s.configure(ctx, actor, func(c *change) error {
		r, err := c.tx.ExecContext(ctx, `UPDATE agents SET banned = 1, ban_reason = ? WHERE id = ?`, reason, id)
		if err := one(r, err); err != nil {
			return err
		}
		if err := c.outbox(ctx, Object{Kind: KindBan, Name: id}, false); err != nil {
			return err
		}
		return c.audit(ctx, "ban", fmt.Sprintf("agent %q, reason %q", id, reason))
	})
	if err != nil {
		return fmt.Errorf("ban agent %q: %w", id, err)
	}
	return nil
}

// DeleteAgent forgets an agent: its host key is as unknown as before it joined.
// A banned one is ErrNotFound: its row is what keeps its host key out. The outbox
// gets a row of KindAgent.
func (s *Store) DeleteAgent(ctx context.Context, actor, id string) error {
	_, err := s.configure(ctx, actor, func(c *change) error {
		r, err := c.tx.ExecContext(ctx, `DELETE FROM agents WHERE id = ? AND banned = 0`, id)
		if err := one(r, err); err != nil {
			return err
		}
		if err := c.outbox(ctx, Object{Kind: KindAgent, Name: id}, true); err != nil {
			return err
		}
		return c.audit(ctx, "delete", fmt.Sprintf("agent %q", id))
	})
	if err != nil {
		return fmt.Errorf("delete agent %q: %w", id, err)
	}
	return nil
}
