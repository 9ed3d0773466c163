package server

import (
	"context"
	"errors"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/server/access"
	"signet.example/server/departures"
	"signet.example/server/fault"
	"signet.example/store"
)

// Leave notes the goodbye of the caller, which is the agent of the connection.
func (a *agentAPI) Leave(ctx context.Context, _ *api.LeaveRequest) (*api.LeaveResponse, error) {
	c, err := access.CallerOf(ctx)
	if err != nil {
		return nil, err
	}
	if !nodes.Ends(c.Agent.Method) {
		return nil, fault.New(fault.Invalid, "an agent that joined by %s stays until it is deleted: its host comes back", c.Agent.Method)
	}
	a.departures.Goodbye(c.Agent.ID, c.Instance)
	return &api.LeaveResponse{}, nil
}

// ofTasks forgets the agents of tasks that have ended.
func (s *server) ofTasks() *departures.Departures {
	return departures.New(departures.Config{
		Ends: nodes.Ends, Agents: s.statuses.All, Agent: operated{s}.Get, CaughtUp: s.issued.CaughtUp, Serves: s.instances.Serves, Forget: s.forget, Log: s.log, Clock: s.clock,
	})
}

// forget lets go of agents that have ended. One that is banned stays, for its host key
// to stay out.
func (s *server) forget(ctx context.Context, ids []string, ended func(id string) bool, theySaid bool) error {
	unlock, err := s.common.writes.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var gone []string
	var errs []error
	for _, id := range ids {
		if !ended(id) { // it came back while this waited
			continue
		}
		actor := "server"
		if theySaid {
			actor = "agent " + id
		}
		switch err := s.store.DeleteAgent(ctx, actor, id); {
		case errors.Is(err, store.ErrNotFound): // banned, or deleted by hand meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			gone = append(gone, id)
		}
	}
	errs = append(errs, operated{s}.Follow(ctx)) // ends their streams: what is dropped stays so
	for _, id := range gone {
		s.sessions.Drop(id)
	}
	return errors.Join(errs...)
}
