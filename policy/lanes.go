package policy

import (
	"runtime"
	"sync"
	"time"
)

// When an evaluation counts as slow. Most take less than a tenth of the first, which is some milliseconds, and of the
// second, which is what a call for 50,000 numbers costs three times: what is spent before the lane, whoever repeats a
// request spends as often as they like. The third is for what is not counted, and late: on a busy machine any evaluation
// may stand still for a while, and one that has made few steps by then did nothing else. In the lane it would wait for
// those that cost.
const (
	slowSteps = 4000
	slowWork  = 1 << 18
	slowAfter = maxTime / 2
	fewSteps  = slowSteps / 10
	fewWork   = slowWork / 10
	// laneRest is how long a destination's lane rests after an evaluation that used up
	// its time, as a multiple of that: such a one is only ever answered by an error.
	laneRest = 3
)

// lanes keep slow evaluations out of the way of the others: of one destination one goes on at a time, and of all
// together one less than there are processors, so that whoever repeats the dearest request gets no more than a
// part of one. The rest wait without using any, each at most until its own time is over.
type lanes struct {
	all chan struct{}

	mu sync.Mutex
	of map[string]*lane // those in use, by destination; guarded by mu
}

type lane struct {
	busy  chan struct{}
	users int // guarded by lanes.mu
}

// slowLanes are those of the process: its processors are what they share out.
var slowLanes = sync.OnceValue(newLanes)

func newLanes() *lanes {
	return &lanes{all: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), of: map[string]*lane{}}
}

// enter waits for both and returns what gives them back, or nil when time is over.
func (l *lanes) enter(destination string, within time.Duration) (leave func(over bool)) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	own := l.use(destination)
	select {
	case own.busy <- struct{}{}:
	case <-timer.C:
		l.release(destination)
		return nil
	}
	select {
	case l.all <- struct{}{}:
	case <-timer.C:
		<-own.busy
		l.release(destination)
		return nil
	}
	begun := time.Now()
	return func(over bool) {
		<-l.all
		free := func() {
			<-own.busy
			l.release(destination)
		}
		if over {
			time.AfterFunc(laneRest*time.Since(begun), free)
			return
		}
		free()
	}
}

func (l *lanes) use(destination string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.of[destination]
	if own == nil {
		own = &lane{busy: make(chan struct{}, 1)}
		l.of[destination] = own
	}
	own.users++
	return own
}

func (l *lanes) release(destination string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own := l.of[destination]; own != nil {
		if own.users--; own.users == 0 {
			delete(l.of, destination)
		}
	}
}
