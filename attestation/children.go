package attestation

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Children are the processes that the agent itself started, each known by the
// pidfd it got when it started it. The zero value is empty.
type Children struct {
	mu   sync.RWMutex
	held map[*child]struct{}
}

type child struct {
	pidfd int
	name  string
}

// Add registers the process of pidfd as the proxy of that name, until remove
// is called. The descriptor is duplicated: the caller's own remains its own.
func (c *Children) Add(pidfd int, name string) (remove func(), err error) {
	dup, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("register proxy %q: %w", name, err)
	}
	ch := &child{pidfd: dup, name: name}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(map[*child]struct{})
	}
	c.held[ch] = struct{}{}
	return func() { c.remove(ch) }, nil
}

func (c *Children) remove(ch *child) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[ch]; !ok {
		return
	}
	delete(c.held, ch)
	_ = unix.Close(ch.pidfd) // nothing was written
}

// Supervised is for Attestor.Supervised. A pidfd that cannot be compared is
// nobody's.
func (c *Children) Supervised(pidfd int, _ int) (string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for ch := range c.held {
		if same, err := SameProcess(pidfd, ch.pidfd); err == nil && same {
			return ch.name, true
		}
	}
	return "", false
}
