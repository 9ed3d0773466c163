package agent

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"signet.example/api"
)

const (
	ringCount = 4096
	ringBytes = 4 << 20
)

// ring keeps the newest decisions for explanations, bounded by number and by
// bytes. It lives in the keys process: a killed authz process takes none along.
// It is safe for any number of goroutines.
type ring struct {
	count, bytes int

	mu    sync.Mutex
	size  int
	order []*api.Decision // oldest first
	byID  map[string]*api.Decision
}

func newRing(count, bytes int) *ring {
	return &ring{count: count, bytes: bytes, byID: map[string]*api.Decision{}}
}

// add keeps d, and forgets the oldest ones that there is no room for.
func (r *ring) add(d *api.Decision) {
	n := proto.Size(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > r.bytes || d.GetId() == "" || r.byID[d.GetId()] != nil {
		return // no room at all, or no record of ours
	}
	r.order = append(r.order, d)
	r.byID[d.GetId()] = d
	r.size += n
	for len(r.order) > r.count || r.size > r.bytes {
		oldest := r.order[0]
		r.order[0] = nil
		r.order = r.order[1:]
		r.size -= proto.Size(oldest)
		delete(r.byID, oldest.GetId())
	}
}

// get returns the decision with this id, nil where it is unknown or forgotten.
func (r *ring) get(id string) *api.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}
