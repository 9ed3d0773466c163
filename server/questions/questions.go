// Package questions asks all agents that are connected for decisions that they keep, and
// joins what they answer. It must not know how they are reached.
//
// # Concurrency
//
// All of it is safe for any number of goroutines.
package questions

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"signet.example/api"
)

// rest is how long the others still have when one has answered. An agent looks
// for 200 ms before it says that it has not what it is asked for.
const rest = 400 * time.Millisecond

// Questions are those that are not answered yet. The zero value has none.
type Questions struct {
	mu      sync.Mutex
	waiting map[string][]*question // by id; guarded by mu, and so is each
}

type question struct {
	most  int             // decisions of each agent
	open  map[string]bool // agents whose answer is awaited
	found []*api.Decision
	some  chan struct{} // closed with the first decision
	all   chan struct{} // closed with the last answer
}

// Ask returns what was answered within a time to the question of an id, at most so many
// decisions of each agent, and the agents that were silent. Whom it was put to is what send
// returns, which must not call back. Where first is set, not all have that time once one has answered.
func (q *Questions) Ask(ctx context.Context, id string, most int, first bool, within time.Duration, send func() []string) (found []*api.Decision, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	own := q.put(id, most, send)
	defer q.forget(id, own)
	some := own.some
	if !first {
		some = nil
	}
	select {
	case <-some:
		late := time.NewTimer(rest)
		defer late.Stop()
		select {
		case <-own.all:
		case <-late.C:
		}
	case <-own.all:
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(own.found), slices.Sorted(maps.Keys(own.open))
}

func (q *Questions) put(id string, most int, send func() []string) *question {
	own := &question{most: most, open: map[string]bool{}, some: make(chan struct{}), all: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock() // so that no answer comes before its question is here
	for _, agent := range send() {
		own.open[agent] = true
	}
	if len(own.open) == 0 {
		close(own.all)
		return own
	}
	if q.waiting == nil {
		q.waiting = map[string][]*question{}
	}
	q.waiting[id] = append(q.waiting[id], own)
	return own
}

func (q *Questions) forget(id string, own *question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if rest := slices.DeleteFunc(q.waiting[id], func(o *question) bool { return o == own }); len(rest) > 0 {
		q.waiting[id] = rest
		return
	}
	delete(q.waiting, id)
}

// Answer files an agent's answer, one for each question.
func (q *Questions) Answer(agent, id string, list []*api.Decision) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, of := range q.waiting[id] {
		if !of.open[agent] {
			continue
		}
		delete(of.open, agent)
		if none := len(of.found) == 0; len(list) > 0 {
			if of.found = append(of.found, list[:min(len(list), of.most)]...); none {
				close(of.some)
			}
		}
		if len(of.open) == 0 {
			close(of.all)
		}
	}
}
