package upstream

import (
	"signet.example/api"
	"signet.example/internal/watched"
)

// Callers is what the server says of those who call the proxies of this host: which of
// the draining ones none of them knows any more. It is safe for any number of goroutines.
type Callers struct{ said watched.Value[*api.Withdrawn] }

// Gone reports whether no caller knows a draining proxy any more, by its name and process,
// and returns a channel that is closed when that may have changed; it is nil where no
// server has said of any so far: one of the version before does not.
func (c *Callers) Gone(proxy string, pid int) (bool, <-chan struct{}) {
	said, changed := c.said.Get()
	if said == nil {
		return false, nil
	}
	return pid != 0 && said.GetPids()[proxy] == int64(pid), changed
}

// take is what the server says now.
func (c *Callers) take(said *api.Withdrawn) { c.said.Set(said) }
