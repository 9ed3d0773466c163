package conns

import (
	"slices"
)

// Caller is which agent called on a connection and was let in.
type Caller struct {
	Agent, Instance string
	// Principal is by whose credentials any number of agents can join, as by those of a role of
	// AWS: these have one share of the connections. Empty is an agent with one of its own.
	Principal string
}

// share is by what the share is known that a caller has a part in.
func (c Caller) share() string {
	if c.Principal != "" {
		return c.Principal
	}
	return c.Agent // no principal has an agent's name: it has a colon
}

// needs is how many connections an agent has a use for: one, and another while it opens the next.
const needs = 2

// held is the connections that agents called on. Whoever gives way where there is no room is
// found by counts, so that it costs no more where there are many.
type held struct {
	n      int
	by     map[string][]*Conn // by agent, the oldest first
	each   tally              // connections by agent
	shares tally              // connections by share
	within map[string]*tally  // by principal: connections by agent
}

func newHeld() held {
	return held{by: map[string][]*Conn{}, each: newTally(), shares: newTally(), within: map[string]*tally{}}
}

func (h *held) add(c *Conn) {
	h.by[c.of.Agent] = append(h.by[c.of.Agent], c)
	h.count(c.of, 1)
}

func (h *held) remove(c *Conn) {
	all := h.by[c.of.Agent]
	i := slices.Index(all, c)
	if i < 0 {
		return
	}
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(h.by, c.of.Agent)
	} else {
		h.by[c.of.Agent] = all
	}
	h.count(c.of, -1)
}

func (h *held) count(of Caller, d int) {
	h.n += d
	h.each.add(of.Agent, d)
	h.shares.add(of.share(), d)
	if of.Principal == "" {
		return
	}
	t := h.within[of.Principal]
	if t == nil {
		one := newTally()
		t = &one
		h.within[of.Principal] = t
	}
	if t.add(of.Agent, d); len(t.of) == 0 {
		delete(h.within, of.Principal)
	}
}

// surplus is the connection that gives way now that c is there, where there is one too many:
// of the agent that has the most, if these are more than one needs, else of the share that has
// the most. Where several have as many it is c's, and c itself where its agent has no other:
// what is in use stays.
func (h *held) surplus(c *Conn) *Conn {
	agent := h.each.largest(c.of.Agent)
	if h.each.most <= needs {
		agent = h.shares.largest(c.of.share()) // its own name, of one that shares with nobody
		if t := h.within[agent]; t != nil {
			agent = t.largest(c.of.Agent)
		}
	}
	return h.oldest(agent, c.of)
}

// oldest is the connection of an agent that gives way: one that another run of it left, if it
// is the caller's.
func (h *held) oldest(agent string, caller Caller) *Conn {
	all := h.by[agent]
	others := func(c *Conn) bool { return agent == caller.Agent && c.of.Instance != caller.Instance }
	return all[max(0, slices.IndexFunc(all, others))]
}

// tally counts for each of many, and finds the one with the most.
type tally struct {
	of   map[string]int
	with map[int]map[string]struct{} // those that have as many
	most int
}

func newTally() tally { return tally{of: map[string]int{}, with: map[int]map[string]struct{}{}} }

// add counts d, which is 1 or -1.
func (t *tally) add(who string, d int) {
	n := t.of[who]
	t.move(who, n, n+d)
	if t.of[who] = n + d; n+d == 0 {
		delete(t.of, who)
	}
}

func (t *tally) move(who string, from, to int) {
	if delete(t.with[from], who); len(t.with[from]) == 0 {
		delete(t.with, from)
	}
	if to > 0 {
		if t.with[to] == nil {
			t.with[to] = map[string]struct{}{}
		}
		t.with[to][who] = struct{}{}
	}
	if to > t.most || from == t.most && t.with[from] == nil {
		t.most = to // it moved by one, so that nobody is between
	}
}

// largest is one with the most: first, if it has as many.
func (t *tally) largest(first string) string {
	if t.of[first] == t.most {
		return first
	}
	for who := range t.with[t.most] {
		return who
	}
	return first
}
