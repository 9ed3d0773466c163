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

// Question is what agents are asked.
type Question struct {
	ID string
	// Most decisions are returned, of all agents.
	Most int
	// Takes reports whether a decision is one that is asked for: an agent may say anything.
	Takes func(*api.Decision) bool
	// First: once one has answered, not all have the time that there is.
	First  bool
	Within time.Duration
}

// question is one with what was answered so far.
type question struct {
	Question

	open  map[string]bool // agents whose answer is awaited
	found []*api.Decision
	some  chan struct{} // closed with the first decision
	all   chan struct{} // closed with the last answer
}

// Ask returns what was answered in time, of the agents in turns, and those that were silent.
// Whom it was put to is what send returns, which must not call back.
func (q *Questions) Ask(ctx context.Context, asked Question, send func() []string) (found []*api.Decision, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, asked.Within)
	defer cancel()
	own := q.put(asked, send)
	defer q.forget(own)
	some := own.some
	if !asked.First {
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

func (q *Questions) put(asked Question, send func() []string) *question {
	own := &question{Question: asked, open: map[string]bool{}, some: make(chan struct{}), all: make(chan struct{})}
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
	q.waiting[own.ID] = append(q.waiting[own.ID], own)
	return own
}

func (q *Questions) forget(own *question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if rest := slices.DeleteFunc(q.waiting[own.ID], func(o *question) bool { return o == own }); len(rest) > 0 {
		q.waiting[own.ID] = rest
		return
	}
	delete(q.waiting, own.ID)
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
		of.take(list)
		if len(of.open) == 0 {
			close(of.all)
		}
	}
}

// take adds what an agent has answered. What there is no room for goes at once: agents are
// many, and each answers with as much as is asked for; and they take turns, so that none leaves
// the others no room with what it makes up.
func (q *question) take(list []*api.Decision) {
	none := len(q.found) == 0
	for _, d := range list {
		if q.Takes(d) {
			q.found = append(q.found, d)
		}
	}
	if none && len(q.found) > 0 {
		close(q.some)
	}
	q.found = api.InTurns(q.found, q.Most, (*api.Decision).GetNode)
}
