// Package departed remembers to which places callers were sent and are not any more: for a
// while, and of each agent the newest. It must not know what is registered, or who has what.
//
// # Concurrency
//
// Nothing here is locked: package views holds its own lock around every call.
package departed

import (
	"slices"
	"time"

	"signet.example/proxy"
)

const (
	// Kept is how long it is known that a place was left; who waits for its callers does not wait
	// as long.
	Kept = 10 * time.Minute
	// Most is how many places are known of one agent. Of those that it left before its callers
	// are not waited for: only its own proxies lose by that.
	Most = 1024
)

// Place is where a proxy of a virtual node listens.
type Place struct {
	Node    proxy.Ref
	Address string
}

// Places are those that were left.
type Places struct {
	by   map[Place]departure
	left map[string][]Place // by agent, the oldest first; each is in by as that agent's
}

// departure is when a place was left: what views were given after seq is without it.
type departure struct {
	agent string
	seq   uint64
	at    time.Time
}

// New has none.
func New() *Places { return &Places{by: map[Place]departure{}, left: map[string][]Place{}} }

// Leave notes that callers are not sent to a place of an agent's any more, from what is given
// after seq.
func (p *Places) Leave(agent string, at Place, seq uint64) {
	p.forget(at)
	if list := p.left[agent]; len(list) == Most {
		p.forget(list[0])
	}
	p.by[at] = departure{agent, seq, time.Now()}
	p.left[agent] = append(p.left[agent], at)
}

// Since returns the seq with which a place was left. It returns false for one that nobody left, or
// long ago.
func (p *Places) Since(at Place) (seq uint64, ok bool) {
	d, ok := p.by[at]
	return d.seq, ok
}

// Forget forgets what was left long ago.
func (p *Places) Forget() {
	for agent := range p.left {
		for list := p.left[agent]; len(list) > 0 && time.Since(p.by[list[0]].at) > Kept; list = p.left[agent] {
			p.forget(list[0])
		}
	}
}

func (p *Places) forget(at Place) {
	d, ok := p.by[at]
	if !ok {
		return
	}
	delete(p.by, at)
	i := slices.Index(p.left[d.agent], at)
	if p.left[d.agent] = slices.Delete(p.left[d.agent], i, i+1); len(p.left[d.agent]) == 0 {
		delete(p.left, d.agent)
	}
}
