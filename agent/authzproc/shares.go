package authzproc

import (
	"fmt"
	"net"
	"sync"

	"signet.example/agent/limits"
	"signet.example/agent/resources"
	"signet.example/internal/underway"
)

// What may be under way to the authz process, of one proxy and of all. What is asked of
// one call has some 10 KiB with the caller's certificate, so that a proxy may have 6,000
// that wait; as objects they take twice of it, of the 512 MiB that the process has.
var mostChecks = underway.Most{Conn: 32 << 20, Peer: 64 << 20, All: 160 << 20, Others: 160 << 20}

// authzTally is of connections that are being attested. An Envoy may open all of its
// own at once.
func authzTally(knows func(uid uint32) bool) *limits.Tally {
	t := limits.New(knows)
	t.PerProcess(maxAuthzConns)
	return t
}

// maxAuthzConns bounds the ext_authz connections of one proxy: an Envoy has one
// for each of its workers, and one that is not ours any more must not keep the
// others from being answered.
const maxAuthzConns = 256

// shares counts the open connections of each proxy.
type shares struct {
	most int
	mu   sync.Mutex
	open map[string]int // guarded by mu
}

// enter counts a connection of who, which counts itself out when it is closed.
func (s *shares) enter(c net.Conn, who string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[who] >= s.most {
		return nil, fmt.Errorf("%w: %s has %d", limits.ErrTooMany, who, s.most)
	}
	s.open[who]++
	return limits.OnClose(c, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[who]--; s.open[who] == 0 {
			delete(s.open, who)
		}
	})), nil
}

// grants cut the connections of what is granted no longer, and no others.
type grants struct {
	mu      sync.Mutex
	open    map[uint64]map[net.Conn]struct{} // by grant; both guarded by mu
	revoked map[uint64]bool
}

// enter keeps a connection with its grant until it is closed.
func (g *grants) enter(c net.Conn, grant uint64) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.revoked[grant] {
		return nil, resources.ErrNotBound
	}
	if g.open == nil {
		g.open = map[uint64]map[net.Conn]struct{}{}
	}
	if g.open[grant] == nil {
		g.open[grant] = map[net.Conn]struct{}{}
	}
	g.open[grant][c] = struct{}{}
	return limits.OnClose(c, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if delete(g.open[grant], c); len(g.open[grant]) == 0 {
			delete(g.open, grant)
		}
	})), nil
}

// revoke closes what is open of the grants, and refuses what is still to come of them.
func (g *grants) revoke(all []uint64) {
	g.mu.Lock()
	g.revoked = make(map[uint64]bool, len(all))
	var cut []net.Conn
	for _, grant := range all {
		g.revoked[grant] = true
		for c := range g.open[grant] {
			cut = append(cut, c)
		}
	}
	g.mu.Unlock()
	for _, c := range cut {
		_ = c.Close() // whoever reads it ends, and counts it out
	}
}
