package server

import (
	"context"
	"fmt"
	"log/slog"

	"signet.example/attestation/awstask"
	"signet.example/server/check"
	"signet.example/server/fault"
	"signet.example/server/roster"
)

// tasks is what tasks of AWS join by.
func (s *server) tasks() awstask.Server {
	return awstask.Server{
		Tokens: platformTokens{s.issuers, platforms(s.cfg.Join)}, Once: s.store,
		Quota: quota{newLimiters(joinsPerSecond, joinsBurst), s.roster, s.cfg.Join.AWSTask.MostOfRole()},
	}
}

// quota is how many agents a principal may have, and how fast they may come (awstask.Quota).
// Those that come in one moment are counted when they have joined: a burst of them may be more.
type quota struct {
	joins  *limiters
	roster *roster.Roster
	most   int
}

// Take implements awstask.Quota.
func (q quota) Take(principal string) error {
	if n := q.roster.JoinedBy(principal); n >= q.most {
		return fault.New(fault.Limit, "%s has %d agents, and may have %d: see `signet get agents` for those that should not be there, or raise join.aws_task.agents_per_role in the server's configuration and restart it", principal, n, q.most)
	}
	if err := q.joins.Take(principal, 1); err != nil {
		return fmt.Errorf("%s joins more often than %d times a second: %w", principal, joinsPerSecond, err)
	}
	return nil
}

// nearlyFull are those that have nine tenths of what they may have.
func nearlyFull(counts map[string]int, most int) map[string]check.Count {
	full := map[string]check.Count{}
	for principal, n := range counts {
		if 10*n >= 9*most {
			full[principal] = check.Count{Is: n, Most: most}
		}
	}
	return full
}

// tellShutOut logs how many agents the configuration has let go of, for each reason: a slip in
// it ends them all.
func (s *server) tellShutOut(ctx context.Context) {
	out := map[string]int{}
	for _, a := range s.roster.All() {
		if err := s.cfg.Join.Takes(a.Method, a.Selectors); err != nil && !a.Banned {
			out[err.Error()]++
		}
	}
	for why, n := range out {
		s.log.WarnContext(ctx, "agents are not served any more", slog.Int("agents", n), slog.String("why", why))
	}
}
