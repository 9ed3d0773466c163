// Package lanes keeps slow work out of the way of what is not: for each of those that have
// some done one goes on at a time. It must not know what the work is.
//
// # Concurrency
//
// Lanes are safe for any number of goroutines.
package lanes

import (
	"runtime"
	"sync"
	"time"
)

// rest is how long a lane rests after work that used up its time, as a multiple of what it spent.
const rest = 3

// Lanes let of one owner one piece of work on at a time, and of all together one less than
// there are processors, so that whoever repeats the dearest gets no more than a part of one.
// The rest wait without using any, each at most until its own time is over.
type Lanes struct {
	Most int // of one owner that go on or wait; 0 is any number

	all chan struct{}

	mu sync.Mutex
	of map[string]*lane // those in use, by owner; guarded by mu
}

type lane struct {
	busy  chan struct{}
	users int // guarded by Lanes.mu
}

// New returns lanes for this process: its processors are what they share out.
func New() *Lanes { return Of(runtime.GOMAXPROCS(0) - 1) }

// Of returns lanes for work of which n go on at a time, such as what waits for somebody else.
func Of(n int) *Lanes {
	return &Lanes{all: make(chan struct{}, max(1, n)), of: map[string]*lane{}}
}

// Busy is how many go on now.
func (l *Lanes) Busy() int { return len(l.all) }

// Enter waits for both and returns what gives them back, or nil when time is over, or as many
// wait as may. Where the work used up its time, spent is that, of which a multiple is the lane's
// rest; else it is 0.
func (l *Lanes) Enter(owner string, within time.Duration) (leave func(spent time.Duration)) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	return enter(l, owner, timer.C)
}

// EnterUntil is Enter for who waits until gaveUp is closed.
func (l *Lanes) EnterUntil(owner string, gaveUp <-chan struct{}) (leave func(spent time.Duration)) {
	return enter(l, owner, gaveUp)
}

func enter[T any](l *Lanes, owner string, over <-chan T) (leave func(spent time.Duration)) {
	own := l.use(owner)
	if own == nil {
		return nil
	}
	select {
	case own.busy <- struct{}{}:
	case <-over:
		l.release(owner)
		return nil
	}
	select {
	case l.all <- struct{}{}:
	case <-over:
		<-own.busy
		l.release(owner)
		return nil
	}
	return func(spent time.Duration) {
		<-l.all
		free := func() {
			<-own.busy
			l.release(owner)
		}
		if spent > 0 {
			time.AfterFunc(rest*spent, free)
			return
		}
		free()
	}
}

// use returns an owner's lane, which release gives back, or nil where as many use it as may.
func (l *Lanes) use(owner string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.of[owner]
	if own == nil {
		own = &lane{busy: make(chan struct{}, 1)}
		l.of[owner] = own
	}
	if l.Most > 0 && own.users >= l.Most {
		return nil
	}
	own.users++
	return own
}

func (l *Lanes) release(owner string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own := l.of[owner]; own != nil {
		if own.users--; own.users == 0 {
			delete(l.of, owner)
		}
	}
}
