package authzproc

import (
	"container/heap"
	"sync"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
)

// Limits of the decisions that are kept. Denials have most of the room: what is allowed has
// no id that a caller was told. What proxies could not carry has as much room as that, beside both.
const (
	ringCount = 4096
	ringBytes = 4 << 20

	allowedShare = 4 // one part in so many is for what was allowed
)

// ring keeps the newest decisions for explanations, bounded by number and by
// bytes. It lives in the keys process: a killed authz process takes none along.
// Nobody can flush it: what is allowed, denied and failed is kept apart, and
// where there is no room, the oldest decision of the destination that has most of
// it goes, of the caller that has most of that. It is safe for any number of goroutines.
type ring struct {
	mu                      sync.Mutex
	denied, allowed, failed *store
	byID                    map[string]*api.Decision
}

func newRing(count, bytes int) *ring {
	byID := map[string]*api.Decision{}
	return &ring{
		byID:    byID,
		denied:  newStore(count-count/allowedShare, bytes-bytes/allowedShare, byID),
		allowed: newStore(count/allowedShare, bytes/allowedShare, byID),
		failed:  newStore(count/allowedShare, bytes/allowedShare, byID),
	}
}

// add keeps d, and forgets what there is no room for.
func (r *ring) add(d *api.Decision) {
	n := proto.Size(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	into := r.denied
	switch {
	case d.GetAllowed():
		into = r.allowed
	case d.NotCarried():
		into = r.failed
	}
	if n > into.bytes || d.GetId() == "" || r.byID[d.GetId()] != nil {
		return // no room at all, or no record of ours
	}
	r.byID[d.GetId()] = d
	into.add(d, n)
}

// get returns the decision with this id, nil where it is unknown or forgotten.
func (r *ring) get(id string) *api.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// pair is who asked for what. The destination is the proxy that asks, as it was
// attested; the source is that proxy's word, and it can make up any number of them.
type pair struct{ source, destination string }

// portion is what one pair has in the ring, oldest first.
type portion struct {
	of    pair
	list  []*api.Decision
	bytes int
	at    int // in the heap
}

// share is what the decisions of one destination have of a store. It is a heap of the
// portions of its callers, the largest first.
type share struct {
	bytes int
	heap  []*portion
}

// store is bounded, and is divided among destinations, and the share of each
// among its callers: the largest portion of the largest share gives way.
type store struct {
	count, bytes int // bounds
	n, size      int // what is kept
	by           map[pair]*portion
	shares       map[string]*share // by destination: as many as a host has proxies
	byID         map[string]*api.Decision
}

func newStore(count, bytes int, byID map[string]*api.Decision) *store {
	return &store{count: count, bytes: bytes, by: map[pair]*portion{}, shares: map[string]*share{}, byID: byID}
}

func (s *store) add(d *api.Decision, n int) {
	of := pair{d.GetSource(), d.GetDestination()}
	sh := s.shares[of.destination]
	if sh == nil {
		sh = &share{}
		s.shares[of.destination] = sh
	}
	p := s.by[of]
	if p == nil {
		p = &portion{of: of}
		s.by[of] = p
		heap.Push(sh, p)
	}
	p.list = append(p.list, d)
	p.bytes += n
	sh.bytes += n
	s.n, s.size = s.n+1, s.size+n
	heap.Fix(sh, p.at)
	for s.n > s.count || s.size > s.bytes {
		s.forget(s.largest(d))
	}
}

// largest is the largest portion of the largest share, except one that is only this decision.
func (s *store) largest(but *api.Decision) *portion {
	var most *portion
	bytes := 0
	for _, sh := range s.shares {
		if p := sh.largest(but); p != nil && (most == nil || sh.bytes > bytes) {
			most, bytes = p, sh.bytes
		}
	}
	return most
}

// largest is the largest portion, except one that is only this decision; nil if there is no other.
func (s *share) largest(but *api.Decision) *portion {
	switch {
	case s.heap[0].list[0] != but:
		return s.heap[0]
	case len(s.heap) == 1:
		return nil
	case len(s.heap) > 2 && s.Less(2, 1):
		return s.heap[2]
	}
	return s.heap[1]
}

// forget drops the oldest decision of a portion.
func (s *store) forget(p *portion) {
	oldest := p.list[0]
	p.list[0] = nil
	p.list = p.list[1:]
	n := proto.Size(oldest)
	sh := s.shares[p.of.destination]
	p.bytes -= n
	sh.bytes -= n
	s.n, s.size = s.n-1, s.size-n
	delete(s.byID, oldest.GetId())
	if len(p.list) > 0 {
		heap.Fix(sh, p.at)
		return
	}
	heap.Remove(sh, p.at)
	delete(s.by, p.of)
	if len(sh.heap) == 0 {
		delete(s.shares, p.of.destination)
	}
}

// Len implements heap.Interface.
func (s *share) Len() int { return len(s.heap) }

// Less implements heap.Interface: the largest portion is first.
func (s *share) Less(i, j int) bool { return s.heap[i].bytes > s.heap[j].bytes }

// Swap implements heap.Interface.
func (s *share) Swap(i, j int) {
	s.heap[i], s.heap[j] = s.heap[j], s.heap[i]
	s.heap[i].at, s.heap[j].at = i, j
}

// Push implements heap.Interface.
func (s *share) Push(x any) {
	p := x.(*portion)
	p.at = len(s.heap)
	s.heap = append(s.heap, p)
}

// Pop implements heap.Interface.
func (s *share) Pop() any {
	last := s.heap[len(s.heap)-1]
	s.heap[len(s.heap)-1] = nil
	s.heap = s.heap[:len(s.heap)-1]
	return last
}
