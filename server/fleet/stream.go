package fleet

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"signet.example/api"
	"signet.example/internal/underway"
)

// Session is an agent's connection, to whichever server. Immutable: a report makes
// another one.
type Session struct {
	id     string // of this session
	server string // that has the stream
	peer   Peer
	since  time.Time
	report *api.Report
}

// Peer is who is connected.
func (s *Session) Peer() Peer { return s.peer }

// Since is when the session began.
func (s *Session) Since() time.Time { return s.since }

// Latest is what the agent reported last, nil if it has not so far.
func (s *Session) Latest() *api.Report {
	if s == nil {
		return nil
	}
	return s.report
}

// stream is a session whose agent is connected to this server.
type stream struct {
	*Session // as it began

	down chan *api.SessionDown
	ask  chan *probe // has room for the one that is outstanding
	end  context.CancelCauseFunc
	gone chan struct{}  // closed when it has ended
	conn *underway.Conn // that it is on; nil where that is of no room

	byAgent atomic.Bool // the agent ended it

	mu      sync.Mutex // guards the following three
	probe   *probe     // the one that is outstanding, nil if none is
	idle    time.Time  // since when the reader waits for a message, zero while it has one
	inquiry string     // the newest that is looked into

	taking sync.Mutex // held while a report is taken
	over   bool       // nothing is taken any more; guarded by taking
	// unserved is what the agent was told last, if it was told; guarded by taking.
	unserved     map[string]string
	unservedSent bool

	backlog backlog
}

// tellUnserved sends the agent which of its proxies no caller is sent to, where that
// has changed, and once on each stream: an earlier one may have sent another
// thing. The caller holds taking.
func (s *stream) tellUnserved(reasons map[string]string) {
	if s.unservedSent && maps.Equal(reasons, s.unserved) {
		return
	}
	select {
	case s.down <- &api.SessionDown{Message: &api.SessionDown_Unserved{Unserved: &api.Unserved{Reasons: reasons}}}:
		s.unserved, s.unservedSent = reasons, true
	default: // it has not read for long: with its next report
	}
}

// retire ends the taking of reports: one that is still on its way must not come
// after what is done when a session ends or is replaced.
func (s *stream) retire() {
	s.taking.Lock()
	defer s.taking.Unlock()
	s.over = true
}
