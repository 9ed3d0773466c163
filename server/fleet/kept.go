package fleet

import (
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/server/fault"
)

// The latest report of an agent is kept until the agent is forgotten. Agents that joined by the
// credentials of one principal can be any number up to its quota, so that what is bounded for
// each is not for all: those of their reports that are larger than a task's have a bound together,
// in bytes as they were sent.
const (
	reportOfTask    = 16 << 10 // of a task with a few proxies it has 1 or 2 KiB
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
	n := proto.Size(m)
	if n <= reportOfTask {
		n = 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := 0
	if l := r.large[p.Principal]; l != nil {
		was = l.of[p.Agent.ID]
		if n > was && l.sum-was+n > mostOfLargeOnes {
			return fault.New(fault.Limit, "report of %d bytes: the agents of %s have %d MiB of reports here that are larger than %d KiB, which is as much as is kept of one principal's", n, p.Principal, mostOfLargeOnes>>20, reportOfTask>>10)
		}
	}
	r.put(p.Principal, p.Agent.ID, n-was)
	return nil
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
