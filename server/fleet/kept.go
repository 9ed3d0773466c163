package fleet

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/internal/decode"
	"signet.example/server/fault"
)

// The latest report of an agent is kept until the agent is forgotten. Agents that joined by the
// credentials of one principal can be any number up to its quota, so that what is bounded for
// each is not for all: those of their reports that are larger than a task's have a bound together.
// Both are in bytes that a report takes in memory: two on the wire can be 150 there.
const (
	reportOfTask    = 32 << 10 // of a task with two proxies it takes some 8 KiB
	mostOfLargeOnes = 64 << 20 // of one principal
)

// large are the reports of one principal's agents that are larger than a task's.
type large struct {
	sum int
	of  map[string]int // bytes, by agent
}

// keeps has the report of an agent in the place of its last one, or refuses it where those of
// its principal's agents are too many. The session ends by that, and what it reported before stays.
func (r *Sessions) keeps(p Peer, m *api.Report) error {
	if p.Principal == "" {
		return nil
	}
	n, err := weight(m)
	if err != nil {
		return err
	}
	if n <= reportOfTask {
		n = 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := 0
	if l := r.large[p.Principal]; l != nil {
		was = l.of[p.Agent.ID]
		if n > was && l.sum-was+n > mostOfLargeOnes {
			return fault.New(fault.Limit, "report that takes %d bytes of memory: the agents of %s have %d MiB of reports here that are larger than %d KiB, which is as much as is kept of one principal's", n, p.Principal, mostOfLargeOnes>>20, reportOfTask>>10)
		}
	}
	r.put(p.Principal, p.Agent.ID, n-was)
	return nil
}

// weight is how many bytes a report takes in memory, as it is kept: with what checkReport added.
func weight(m *api.Report) (int, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("weigh a report: %w", err)
	}
	n, err := decode.Weigh(b, m)
	if err != nil {
		return 0, fault.New(fault.Invalid, "report: %v", err)
	}
	return n, nil
}

// put adds to what is kept of an agent. The caller holds mu.
func (r *Sessions) put(principal, agent string, d int) {
	l := r.large[principal]
	switch {
	case d == 0:
		return
	case l == nil:
		l = &large{of: map[string]int{}}
		r.large[principal] = l
	}
	l.sum += d
	if l.of[agent] += d; l.of[agent] == 0 {
		delete(l.of, agent)
	}
	if len(l.of) == 0 {
		delete(r.large, principal)
	}
}

// forgets is of an agent of which nothing is kept any more. The caller holds mu.
func (r *Sessions) forgets(agent string) {
	for principal, l := range r.large {
		r.put(principal, agent, -l.of[agent])
	}
}
