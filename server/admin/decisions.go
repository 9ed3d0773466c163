package admin

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/fault"
)

// mostDecisions is what one list has at most, someDecisions what it has where no limit is given.
const mostDecisions, someDecisions = 500, 100

const (
	// mostFollowers bounds the calls that follow decisions: for each of them all agents are asked
	// every followPause.
	mostFollowers = 16
	followPause   = time.Second
	// followOverlap is how much of the time before is asked for again: agents' clocks differ, and a
	// decision may come late.
	followOverlap = 10 * time.Second
)

// Decisions lists what the connected agents keep of their decisions.
func (s *Server) Decisions(ctx context.Context, req *api.DecisionsListRequest) (*api.DecisionsListResponse, error) {
	f, err := filterOf(req)
	if err != nil {
		return nil, err
	}
	out := &api.DecisionsListResponse{}
	out.Decisions, out.Silent = s.cfg.Sessions.Decisions(ctx, f)
	return out, nil
}

// filterOf returns the filter of a request, with a limit.
func filterOf(req *api.DecisionsListRequest) (*api.DecisionFilter, error) {
	f := proto.CloneOf(req.GetFilter())
	switch {
	case f == nil:
		f = &api.DecisionFilter{Limit: someDecisions}
	case f.GetLimit() == 0:
		f.Limit = someDecisions
	case f.GetLimit() < 0 || f.GetLimit() > mostDecisions:
		return nil, fault.New(fault.Invalid, "limit %d: must be 1 to %d", f.GetLimit(), mostDecisions)
	}
	return f, nil
}

// FollowDecisions lists what the connected agents keep, and what they decide from then on. A
// caller that does not read is not asked for: only its own call waits.
func (s *Server) FollowDecisions(req *api.DecisionsListRequest, stream grpc.ServerStreamingServer[api.FollowDecisionsResponse]) error {
	f, err := filterOf(req)
	switch {
	case err != nil:
		return err
	case f.GetUntil() != nil:
		return fault.New(fault.Invalid, "until: decisions that come are followed without an end")
	case !s.followers.TryAcquire(1):
		return fault.New(fault.Limit, "%d calls follow decisions, which is the most: end one of them, or list decisions without following", mostFollowers)
	}
	defer s.followers.Release(1)
	ctx, sent := stream.Context(), follower{decisions: map[[2]string]time.Time{}}
	for first := true; ; first = false {
		asked := s.cfg.Clock()
		list, silent := s.cfg.Sessions.Decisions(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		m := sent.next(asked, list, silent)
		if first || len(m.GetDecisions())+len(m.GetSilent()) > 0 {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		f.Since, f.Limit = timestamppb.New(asked.Add(-followOverlap)), mostDecisions
		if err := s.await(ctx, nil, followPause); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// follower is what one caller was sent: the decisions, by agent and id, with when an answer had each
// last, and the agents that were silent at the last question.
type follower struct {
	decisions map[[2]string]time.Time
	silent    []string
}

// next returns what is news of the answers to a question, and notes it as sent. What no answer
// has had for followOverlap will be in none again.
func (w *follower) next(asked time.Time, list []*api.Decision, silent []string) *api.FollowDecisionsResponse {
	m := &api.FollowDecisionsResponse{}
	for _, d := range slices.Backward(list) { // the newest is the first
		one := [2]string{d.GetNode(), d.GetId()} // another agent may claim the same id
		if _, known := w.decisions[one]; !known {
			m.Decisions = append(m.Decisions, d)
		}
		w.decisions[one] = asked
	}
	maps.DeleteFunc(w.decisions, func(_ [2]string, had time.Time) bool { return asked.Sub(had) > followOverlap })
	for _, agent := range silent {
		if !slices.Contains(w.silent, agent) {
			m.Silent = append(m.Silent, agent)
		}
	}
	w.silent = silent
	return m
}
