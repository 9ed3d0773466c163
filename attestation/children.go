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
	pids map[int]int // how many of held have it
}

type child struct {
	pidfd, pid int
	name       string
}

// Add registers the process of pidfd as the proxy of that name, until remove
// is called. The descriptor is duplicated: the caller's own remains its own.
func (c *Children) Add(pidfd int, name string) (remove func(), err error) {
	dup, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("register proxy %q: %w", name, err)
	}
	ch := &child{pidfd: dup, name: name}
	if ch.pid, err = pidOf(dup); err != nil {
		ch.pid = 0 // it is gone by now: nothing comes of it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held, c.pids = make(map[*child]struct{}), make(map[int]int)
	}
	c.held[ch] = struct{}{}
	c.pids[ch.pid]++
	return func() { c.remove(ch) }, nil
}

func (c *Children) remove(ch *child) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[ch]; !ok {
		return
	}
	delete(c.held, ch)
	if c.pids[ch.pid]--; c.pids[ch.pid] == 0 {
		delete(c.pids, ch.pid)
	}
	_ = unix.Close(ch.pidfd) // nothing was written
}

// Has reports whether one of them has a process id. It is for bounds: what it says of a
// process that is no child's is sure, and asks nothing of the kernel.
func (c *Children) Has(pid int) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return pid > 0 && c.pids[pid] > 0
}

// Supervised is for Attestor.Supervised. A pidfd that cannot be compared is
// nobody's. Only where the process ids are one are they compared: there can be hundreds.
func (c *Children) Supervised(pidfd, pid int) (string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for ch := range c.held {
		if ch.pid != pid {
			continue
		}
		if same, err := SameProcess(pidfd, ch.pidfd); err == nil && same {
			return ch.name, true
		}
	}
	return "", false
}
