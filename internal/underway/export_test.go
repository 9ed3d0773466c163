package underway

import (
	"sync/atomic"
	"time"
)

// Patience has the room wait for so long for who does not read.
func (r *Room) Patience(d time.Duration) { r.patience = d }

// Blocked has the room wait for so long for who goes on where nothing is read.
func (r *Room) Blocked(d time.Duration) { r.blocked = d }

// Streams follows what a client sends and what it is answered, in turns of step bytes, and
// returns what is kept for open streams, and how many there are.
func Streams(sent, answered []byte, step int) (keeps, open int) {
	s := streams{open: map[uint32]opened{}}
	f, w := newFrames(new(atomic.Uint64), &s), written{}
	for len(sent)+len(answered) > 0 {
		k := min(step, len(sent))
		s.handled()
		f.take(sent[:k])
		keeps, sent = keeps+f.keeps, sent[k:]
		k = min(step, len(answered))
		w.take(answered[:k], func(id uint32) { keeps -= s.end(id).headers })
		answered = answered[k:]
	}
	s.handled()
	keeps -= s.passed().headers
	for _, o := range s.open {
		keeps -= o.headers
	}
	return keeps, len(s.open)
}

// Turn is what a client sends, what it is answered, and whether everything was given back then.
type Turn struct {
	Sent, Answered []byte
	Settled        bool
}

// Held follows turns, and returns what the last adds to the sum for messages, and why no more
// is read.
func Held(turns ...Turn) (last int, err error) {
	s := streams{open: map[uint32]opened{}}
	settled := new(atomic.Uint64)
	f, w := newFrames(settled, &s), written{}
	for _, t := range turns {
		last = f.take(t.Sent)
		w.take(t.Answered, func(id uint32) { s.end(id) })
		if t.Settled {
			settled.Add(1)
		}
	}
	return last, f.err
}

// Sum is what follows from bytes that come in pieces of step.
func Sum(b []byte, step int) int {
	f, n := newFrames(new(atomic.Uint64), nil), 0
	for len(b) > 0 {
		k := min(step, len(b))
		n += f.take(b[:k])
		b = b[k:]
	}
	return n
}
