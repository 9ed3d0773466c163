package fleet

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/proxy/answers"
	"signet.example/server/fault"
	"signet.example/server/questions"
)

// explainDeadline is how long the connected agents have to look up decisions.
const explainDeadline = time.Second

// Explain asks every connected agent for a decision, in parallel, and returns
// it, or nil when none has it in time. Ids are random: where two agents claim
// one, one of them makes it up, and nobody can tell from here which.
func (r *Sessions) Explain(ctx context.Context, id string) (*api.Decision, error) {
	m := &api.SessionDown{Message: &api.SessionDown_Explain{Explain: id}}
	asked := questions.Question{
		ID: id, Most: 2, First: true, Within: explainDeadline, // of two one is made up
		Takes: func(d *api.Decision) bool { return d.GetId() == id },
	}
	switch all, _ := r.questions.Ask(ctx, asked, func() []string { return r.send(m) }); len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	default:
		return nil, fault.New(fault.Conflict, "%s and %s both claim decision %s: ids are random, so one of these hosts makes it up",
			all[0].GetNode(), all[1].GetNode(), id)
	}
}

// Decisions asks every connected agent for what it keeps, in parallel, and returns the newest
// of each in turn, and the agents that did not answer in time. What it is given may be changed when it has
// returned: the question may wait then for an agent that reads slowly.
func (r *Sessions) Decisions(ctx context.Context, f *api.DecisionFilter) (list []*api.Decision, silent []string) {
	asked := questions.Question{ID: rand.Text(), Most: int(f.GetLimit()), Takes: f.Takes, Within: explainDeadline}
	m := &api.SessionDown{Message: &api.SessionDown_Decisions{Decisions: &api.DecisionsQuestion{Nonce: asked.ID, Filter: proto.CloneOf(f)}}}
	list, silent = r.questions.Ask(ctx, asked, func() []string { return r.send(m) })
	slices.SortStableFunc(list, api.NewestFirst)
	return list, silent
}

// send puts something to the agents that are connected here, and returns to whom.
func (r *Sessions) send(m *api.SessionDown) (sent []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for agent, s := range r.here {
		select {
		case s.down <- m:
			sent = append(sent, agent)
		default: // its queue is full: it will not answer in time
		}
	}
	return sent
}

// explained takes an agent's answer for one decision.
func (r *Sessions) explained(s *stream, a *api.ExplainAnswer) {
	var list []*api.Decision
	if d := a.GetDecision(); d != nil {
		list = append(list, d)
	}
	r.answer(s, a.GetId(), list)
}

// answer takes an agent's answer. The node is written by us: an agent cannot speak in another's
// name. So is what to do: an operator pastes the commands in it.
func (r *Sessions) answer(s *stream, id string, all []*api.Decision) {
	var list []*api.Decision
	for _, of := range all {
		d := proto.CloneOf(of)
		plain.Message(d)
		d.Node, d.Cure = s.peer.ID.String(), cureOf(d)
		list = append(list, d)
	}
	r.questions.Answer(s.peer.Agent.ID, id, list)
}

// cureOf is what to do about a decision, "" where nothing is known of its kind.
func cureOf(d *api.Decision) string {
	k, ok := answers.Named(d.GetKind())
	if !ok {
		return ""
	}
	return k.CureFor(answers.Names{From: inMesh(d.GetSource()), To: inMesh(d.GetDestination()), Host: d.GetHost()})
}

// inMesh is an identity as commands name it, by mesh and node.
func inMesh(id string) string {
	_, path, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	return path
}
