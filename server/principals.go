package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"signet.example/attestation/nodes"
	"signet.example/attestation/platform"
	"signet.example/identity"
	"signet.example/server/check"
	"signet.example/server/fault"
	"signet.example/server/roster"
)

// vouching is what hosts join by for which a platform vouches.
func (s *server) vouching() platform.Server {
	return platform.Server{
		Tokens: platformTokens{s.issuers}, Once: s.store,
		Quota: quota{newLimiters(joinsPerSecond, joinsBurst), s.roster, s.cfg.Join.Quota},
		Group: func(selectors []string) error {
			has, err := identity.ParseSelectors(selectors)
			if err != nil {
				return err
			}
			_, err = groupOf(s.model(), nodes.Node{Method: has[0].Type, Selectors: has}) // each method gives some
			return err
		},
	}
}

// quota is how many agents a principal may have, and how fast they may come (platform.Quota).
// Those that come in one moment are counted when they have joined: a burst of them may be more.
type quota struct {
	joins  *limiters
	roster *roster.Roster
	of     func(principal string) nodes.Quota
}

// Take implements platform.Quota.
func (q quota) Take(principal string, key []byte) error {
	method, _, _ := strings.Cut(principal, ":")
	_, again := q.roster.ByEvidence(method, key)
	of := q.of(principal)
	if n := q.roster.JoinedBy(principal); n >= of.Most && !again {
		return fault.New(fault.Limit, "%s has %d agents, and may have %d: see `signet get agents` for those that should not be there, or raise %s in the server's configuration and restart it", principal, n, of.Most, of.Key)
	}
	if err := q.joins.Take(principal, 1); err != nil {
		return fmt.Errorf("%s joins more often than %d times a second: %w", principal, joinsPerSecond, err)
	}
	return nil
}

// nearlyFull are those that have nine tenths of what they may have.
func nearlyFull(counts map[string]int, of func(principal string) nodes.Quota) map[string]check.Count {
	full := map[string]check.Count{}
	for principal, n := range counts {
		if q := of(principal); 10*n >= 9*q.Most {
			full[principal] = check.Count{Is: n, Most: q.Most, Key: q.Key}
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
