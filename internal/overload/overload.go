// Package overload is the second line behind the bounds of internal/underway. Those count
// what gRPC is understood to keep; this looks at what the process has. Where that is too
// much, connections give way until it is not, those first that most likely have it: so
// that a miscount costs connections and not the process. Envoy's overload manager does
// the same ("reset_high_memory_stream").
//
// # Concurrency
//
// A [Guard] has no state but in its Run, which is called once.
package overload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"time"
)

// ErrShort is why a connection gave way.
var ErrShort = errors.New("memory is short")

// Connections are what gives way where the process has too much.
type Connections interface {
	// Age has what was sent long ago count for less.
	Age()
	// Pause has nothing more come from those of whom nothing is known and from those who gave
	// way meanwhile, until resume is called.
	Pause() (resume func())
	// Suspects are all who are connected and may have something, those first that most likely
	// have most. None of a class gives way before all of the classes before it have.
	Suspects() []Suspect
}

// Suspect is a peer with all its connections.
type Suspect struct {
	Peer  string
	Class int
	// GiveWay closes them because of why, and returns how many there were, and how to ask
	// whether whoever served them has let go of them.
	GiveWay func(why error) (n int, gone func() bool)
}

// Guard watches the memory of this process.
type Guard struct {
	// Connections are the ones that it closes.
	Connections Connections
	Log         *slog.Logger

	limit, budget int64 // what it may have, and may have in use
	percent, most int   // the collector's GOGC as it is, and as it was given
}

const (
	// look is how often a Guard looks: whoever sends 400 MB a second sends 40 meanwhile.
	look = 100 * time.Millisecond
	// age is how often what was sent before begins to count for half.
	age = 5 * time.Second
	// settle is a moment for handlers and writers of connections that were closed to end, and
	// patience how long they are waited for.
	settle   = 10 * time.Millisecond
	patience = 2 * time.Second
)

// New makes a Guard for what a process of ours may have, in bytes: GOMEMLIMIT where whoever
// started it has set that, else limit, which is set as the collector's, too. What is in use
// may be three quarters of it: the rest is for what the collector has not found yet.
func New(limit int64, c Connections, log *slog.Logger) *Guard {
	if given := debug.SetMemoryLimit(-1); given < math.MaxInt64 {
		limit = given
	} else {
		debug.SetMemoryLimit(limit)
	}
	percent := debug.SetGCPercent(leastPercent)
	debug.SetGCPercent(percent)
	return &Guard{Connections: c, Log: log, limit: limit, budget: limit / 4 * 3, percent: percent, most: percent}
}

// leastPercent is the collector's own default, below which it is not set here.
const leastPercent = 100

// collect has garbage collected by what lives: a process that was given more than the default
// has it while that is little, so that much of its time goes by between collections. Where
// more lives, as much again would reach the limit, at which the collector runs all the time,
// at everybody's cost, whoever made the garbage.
func (g *Guard) collect(live int64) {
	percent := garbage(live, g.limit, g.most)
	if percent != g.percent {
		g.percent = percent
		debug.SetGCPercent(percent)
	}
}

// garbage is how much of it there may be, in percent of what lives: an eighth of the limit, in
// steps, since each change stops the process for a moment.
func garbage(live, limit int64, most int) int {
	if most <= leastPercent {
		return most // off, too
	}
	percent := int(min(int64(most), limit/8*100/max(1, live)))
	return max(leastPercent, percent/100*100)
}

// Run watches until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	looks, ages := time.NewTicker(look), time.NewTicker(age)
	defer looks.Stop()
	defer ages.Stop()
	budget := g.budget
	// collected is what was in use when that was last known for sure: the collector is not
	// asked again until there is a good deal more.
	collected, more := int64(0), int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ages.C:
			g.Connections.Age()
			continue
		case <-looks.C:
		}
		now := read()
		g.collect(now.live)
		if now.live <= g.budget {
			budget = g.budget
		}
		if now.allocated <= max(budget, collected+max(budget/4, more)) {
			continue
		}
		more = 0
		if collected = inUse(); collected <= budget {
			continue
		}
		if collected = g.shed(ctx, collected, budget); collected > budget {
			// Not of connections: closing them again would help nobody.
			more = collected / 2
			budget = max(budget, min(collected+more, g.limit))
			g.Log.ErrorContext(ctx, "memory is short, and not because of connections", slog.Int64("in_use", collected), slog.Int64("budget", g.budget),
				slog.Int64("next", budget), slog.String("hint", "give the process more: GOMEMLIMIT of its environment is what it may have"))
		}
	}
}

// shed has peers give way, each time twice as many of a class, until what is in use is within
// the budget or none is left that may have something. It returns what is in use then. Who is
// first is asked anew each time: whoever comes again is where he was.
func (g *Guard) shed(ctx context.Context, used, budget int64) int64 {
	defer g.Connections.Pause()()
	for n, class := 0, -1; ; n *= 2 {
		all := g.Connections.Suspects()
		if len(all) == 0 {
			return used
		}
		last := slices.IndexFunc(all, func(s Suspect) bool { return s.Class != all[0].Class })
		if last < 0 {
			last = len(all)
		}
		if all[0].Class != class {
			n, class = 1+last/8, all[0].Class
		}
		n = min(n, last)
		why, closed := fmt.Errorf("%w: %d MiB are in use, and %d may be", ErrShort, used>>20, budget>>20), 0
		var gone []func() bool
		for _, s := range all[:n] {
			k, left := s.GiveWay(why)
			closed, gone = closed+k, append(gone, left)
		}
		g.Log.ErrorContext(ctx, "memory is short: connections are closed", slog.Int64("in_use", used), slog.Int64("budget", budget),
			slog.Int("closed", closed), slog.Int("peers", n), slog.String("most", all[0].Peer), slog.Int("left", len(all)-n))
		if used = afterClosing(gone); used <= budget {
			return used
		}
	}
}

// afterClosing is what is in use once those that were closed are gone.
func afterClosing(gone []func() bool) int64 {
	for end := time.Now().Add(patience); len(gone) > 0 && time.Now().Before(end); time.Sleep(settle) {
		gone = slices.DeleteFunc(gone, func(gone func() bool) bool { return gone() })
	}
	runtime.GC() // what lies in a sync.Pool is let go by the second
	return inUse()
}

// usage is what a process has, in bytes.
type usage struct {
	allocated int64 // with what the collector would find
	live      int64 // as of its last run
}

// inUse collects what nobody has any more, and returns what is left.
func inUse() int64 {
	runtime.GC()
	return read().live
}

func read() usage {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	stacks := s[1].Value.Uint64()
	return usage{
		allocated: int64(s[0].Value.Uint64() + stacks), //nolint:gosec // of this machine's memory
		live:      int64(s[2].Value.Uint64() + stacks), //nolint:gosec // of this machine's memory
	}
}
