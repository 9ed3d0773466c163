package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"signet.example/internal/watched"
	"signet.example/server/model"
	"signet.example/store"
)

// model is what is stored, as last seen.
func (s *server) model() *model.Model { return s.current.Load() }

// install makes m what is served, and wakes what depends on it except the views.
// Callers hold loading, or nothing runs yet.
func (s *server) install(ctx context.Context, m *model.Model) {
	s.followJoins(ctx) // whoever is not known would lose its endpoints
	old := s.current.Swap(m)
	moved := (old == nil || !old.Groups().Placing.Same(m.Groups().Placing)) && s.roster.PlaceAgain()
	if moved || old == nil || old.Groups().Hosts != m.Groups().Hosts || !old.Groups().Ranges.Same(m.Groups().Ranges) {
		s.endpoints.Review()
		s.sessions.Again()
	}
	s.policies.Renew()
	s.issuers.Renew()
	s.found.Renew()
}

// reload takes what the store has and we have not, and returns the newest model.
func (s *server) reload(ctx context.Context) (*model.Model, error) {
	if now := s.model(); now.Revision() >= s.store.Revision() { // waits for no write that is under way
		return now, nil
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.catchUp(ctx)
}

// catchUp is reload for callers that hold loading.
func (s *server) catchUp(ctx context.Context) (*model.Model, error) {
	now := s.model()
	if now.Revision() >= s.store.Revision() {
		return now, nil
	}
	changes, err := s.store.Changes(ctx, now.Revision())
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	if slices.ContainsFunc(changes, func(c store.Change) bool { return c.Kind == store.KindAgent || c.Kind == store.KindBan }) {
		if err := s.reloadRoster(ctx); err != nil {
			return nil, err
		}
	}
	next, err := now.Follow(changes)
	if err != nil {
		return nil, err
	}
	s.install(ctx, next)
	s.views.Changed()
	return next, nil
}

// reloadRoster takes what the store has of the agents, and drops the endpoints of
// those that must no longer be served.
func (s *server) reloadRoster(ctx context.Context) error {
	if err := s.roster.Load(ctx); err != nil {
		return err
	}
	s.endpoints.Review()
	return nil
}

// followJoins takes the agents that joined at other servers.
func (s *server) followJoins(ctx context.Context) {
	if err := s.roster.Follow(ctx); err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "agents not read; those that are known stay", slog.Any("err", err))
	}
}

// watchJoins follows the agents that join at other servers, so that they are listed.
func (s *server) watchJoins(ctx context.Context) error {
	for {
		_, next := s.store.Joined()
		s.followJoins(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

// watch follows the store's revisions: objects, agents, bans.
func (s *server) watch(ctx context.Context) error {
	for {
		_, err := s.store.Wait(ctx, s.model().Revision())
		if err == nil {
			_, err = s.reload(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.log.ErrorContext(ctx, "store not read; what is served stays", slog.Any("err", err))
			watched.Sleep(ctx, time.Second)
		}
	}
}
