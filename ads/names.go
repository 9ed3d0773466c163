package ads

import "sync"

// What clients name, in resources that they ask for and such as they say they have, is
// kept as long as their streams: numbers of names, of types and of streams are bounded
// each, and so are the bytes of all.
const (
	maxNamed     = 4 << 20  // of one stream: 10,000 names of 100 bytes, with what each costs, are 1.6 MiB
	maxPeerNamed = 32 << 20 // of all streams of one peer
	perName      = 64       // what a name costs beside its bytes
)

// names counts bytes by peer.
type names struct {
	mu   sync.Mutex
	held map[string]int // guarded by mu
}

// count adds n, and returns it.
func (a *names) count(peer string, n int) int {
	if n == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[string]int{}
	}
	if a.held[peer] += n; a.held[peer] == 0 {
		delete(a.held, peer)
	}
	return n
}

func (a *names) of(peer string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[peer]
}
