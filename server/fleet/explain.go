package fleet

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/server/fault"
)

const (
	// explainDeadline is how long the connected agents have to look up a decision.
	explainDeadline = time.Second
	// explainRest is how long the others still have when one has it. An agent looks
	// for 200 ms before it says that it has not.
	explainRest = 400 * time.Millisecond
)

// question is asked of all agents that are connected. Guarded by sessions.mu.
type question struct {
	open      map[string]bool // agents whose answer is awaited
	decisions []*api.Decision
	found     chan struct{} // closed with the first decision
	all       chan struct{} // closed with the last answer
}

// Explain asks every connected agent for a decision, in parallel, and returns
// it, or nil when none has it in time. Ids are random: where two agents claim
// one, one of them makes it up, and nobody can tell from here which.
func (r *Sessions) Explain(ctx context.Context, id string) (*api.Decision, error) {
	q := &question{open: map[string]bool{}, found: make(chan struct{}), all: make(chan struct{})}
	r.ask(id, q)
	defer r.forget(id, q)
	ctx, cancel := context.WithTimeout(ctx, explainDeadline)
	defer cancel()
	select {
	case <-q.found:
		rest := time.NewTimer(explainRest)
		defer rest.Stop()
		select {
		case <-q.all:
		case <-rest.C:
		}
	case <-q.all:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch all := q.decisions; len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	default:
		return nil, fault.New(fault.Conflict, "%s and %s both claim decision %s: ids are random, so one of these hosts makes it up",
			all[0].GetNode(), all[1].GetNode(), id)
	}
}

// ask puts a question to the agents.
func (r *Sessions) ask(id string, q *question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for agent, s := range r.here {
		select {
		case s.down <- &api.SessionDown{Message: &api.SessionDown_Explain{Explain: id}}:
			q.open[agent] = true
		default: // its queue is full: it will not answer within the deadline
		}
	}
	if len(q.open) == 0 {
		close(q.all)
		return
	}
	r.waiting[id] = append(r.waiting[id], q)
}

func (r *Sessions) forget(id string, q *question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[id] = slices.DeleteFunc(r.waiting[id], func(o *question) bool { return o == q })
	if len(r.waiting[id]) == 0 {
		delete(r.waiting, id)
	}
}

// answer files an agent's answer, one for each question. The node is written by
// us: an agent cannot speak in another's name.
func (r *Sessions) answer(s *stream, a *api.ExplainAnswer) {
	var d *api.Decision
	if a.GetDecision().GetId() == a.GetId() && a.GetDecision() != nil {
		d, _ = proto.Clone(a.GetDecision()).(*api.Decision) // Clone returns what it was given
		plainMessage(d.ProtoReflect())
		d.Node = s.peer.ID.String()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.waiting[a.GetId()] {
		if !q.open[s.peer.Agent.ID] {
			continue
		}
		delete(q.open, s.peer.Agent.ID)
		if d != nil {
			if q.decisions = append(q.decisions, d); len(q.decisions) == 1 {
				close(q.found)
			}
		}
		if len(q.open) == 0 {
			close(q.all)
		}
	}
}
