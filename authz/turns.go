package authz

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"
)

// How many bytes of requests may wait for a turn: of one destination, and of all, beside the first
// of each destination, which no others keep out. What waits is decoded, and takes some twice of it.
const (
	mostWaitingOfOne = 16 << 20
	mostWaiting      = 48 << 20
)

var errTooManyWait = errors.New("too many requests wait for a decision")

// turns bound how many checks are made at a time. One more waits, and destinations take turns:
// however many wait for one, a check for another is among the next. They are safe for any
// number of goroutines.
type turns struct {
	mu    sync.Mutex // guards what follows
	free  int        // none while any waits
	bytes int        // of all that wait
	lines map[string]*line
	order []string // those that have a line, the next one first
}

// line is what waits for one destination; empty where all gave up.
type line struct {
	waiting list.List // of *waiter
	bytes   int
}

type waiter struct {
	bytes int
	turn  chan struct{} // closed when it has come
	at    *list.Element
}

func newTurns(most int) *turns { return &turns{free: most, lines: map[string]*line{}} }

// enter waits for a turn, which leave gives back. It returns why there is none: ctx has ended, or
// errTooManyWait.
func (t *turns) enter(ctx context.Context, destination string, request proto.Message) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	w, err := t.wait(destination, proto.Size(request))
	t.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		t.giveUp(destination, w)
		return ctx.Err()
	}
}

// wait has a request wait. t.mu must be held.
func (t *turns) wait(destination string, bytes int) (*waiter, error) {
	l, known := t.lines[destination]
	if !known {
		l = &line{}
	}
	if l.bytes+bytes > mostWaitingOfOne || l.bytes > 0 && t.bytes+bytes > mostWaiting {
		return nil, errTooManyWait
	}
	if !known {
		t.lines[destination] = l
		t.order = append(t.order, destination)
	}
	w := &waiter{bytes: bytes, turn: make(chan struct{})}
	w.at = l.waiting.PushBack(w)
	l.bytes += bytes
	t.bytes += bytes
	return w, nil
}

// remove takes one that waits out of its line. t.mu must be held.
func (t *turns) remove(l *line, w *waiter) {
	l.waiting.Remove(w.at)
	l.bytes -= w.bytes
	t.bytes -= w.bytes
}

// giveUp takes a request out of its line, or gives its turn on where that has come meanwhile.
func (t *turns) giveUp(destination string, w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-w.turn:
		t.next()
	default:
		t.remove(t.lines[destination], w)
	}
}

// leave gives a turn back.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

// next gives a turn to whoever is next, or frees it. t.mu must be held.
func (t *turns) next() {
	for len(t.order) > 0 {
		destination := t.order[0]
		t.order = t.order[1:]
		l := t.lines[destination]
		first := l.waiting.Front()
		if first == nil || l.waiting.Len() == 1 {
			delete(t.lines, destination)
		} else {
			t.order = append(t.order, destination)
		}
		if first != nil {
			w, _ := first.Value.(*waiter)
			t.remove(l, w)
			close(w.turn)
			return
		}
	}
	t.free++
}
