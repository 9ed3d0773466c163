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
	"time"
)

// ErrShort is why a connection gave way.
var ErrShort = errors.New("memory is short")

// Connections are what gives way where the process has too much.
type Connections interface {
	// Age has what was sent long ago count for less.
	Age()
	// Pause has nothing more come over those of the first class until resume is called.
	Pause() (resume func())
	// Suspects are all, those first that most likely have most. None of a class is closed
	// before all of the classes before it are.
	Suspects() [][]Connection
}

// Connection is one of them.
type Connection interface{ GiveWay(why error) }

// Guard watches the memory of this process.
type Guard struct {
	// Connections are the ones that it closes.
	Connections Connections
	Log         *slog.Logger

	budget int64 // bytes in use
}

const (
	// look is how often a Guard looks: whoever sends 400 MB a second sends 40 meanwhile.
	look = 100 * time.Millisecond
	// age is how often what was sent before begins to count for half.
	age = 5 * time.Second
	// settle is a moment for handlers and writers of connections that were closed to end.
	settle = 100 * time.Millisecond
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
	return &Guard{Connections: c, Log: log, budget: limit / 4 * 3}
}

// Run watches until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	looks, ages := time.NewTicker(look), time.NewTicker(age)
	defer looks.Stop()
	defer ages.Stop()
	budget := g.budget
	// collected is what was in use when that was last known for sure: the collector is not
	// asked again until there is a good deal more.
	collected := int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ages.C:
			g.Connections.Age()
			continue
		case <-looks.C:
		}
		if allocated := read().allocated; allocated <= max(budget, collected+budget/4) {
			continue
		}
		if collected = inUse(); collected <= budget {
			if collected <= g.budget {
				budget = g.budget
			}
			continue
		}
		collected = g.shed(ctx, collected, budget)
		if collected > budget { // not of connections: closing more of them would help nobody
			budget = collected + collected/4
			g.Log.ErrorContext(ctx, "memory is short, and not because of connections", slog.Int64("in_use", collected), slog.Int64("budget", g.budget),
				slog.Int64("next", budget), slog.String("hint", "give the process more: GOMEMLIMIT of its environment is what it may have"))
		}
	}
}

// shed has connections give way, each time twice as many of a class, until what is in use is
// within the budget or all had to. It returns what is in use then.
func (g *Guard) shed(ctx context.Context, used, budget int64) int64 {
	defer g.Connections.Pause()()
	for class, open := range g.Connections.Suspects() {
		for n := 1 + len(open)/8; len(open) > 0; n *= 2 {
			n = min(n, len(open))
			g.Log.ErrorContext(ctx, "memory is short: connections are closed", slog.Int64("in_use", used), slog.Int64("budget", budget),
				slog.Int("class", class), slog.Int("closed", n), slog.Int("left", len(open)-n))
			why := fmt.Errorf("%w: %d MiB are in use, and %d may be", ErrShort, used>>20, budget>>20)
			for _, c := range open[:n] {
				c.GiveWay(why)
			}
			open = open[n:]
			if used = afterClosing(used, budget); used <= budget {
				return used
			}
		}
	}
	return used
}

// afterClosing is what is in use once those that were closed have ended, which takes as long
// as there is less each time.
func afterClosing(used, budget int64) int64 {
	for {
		time.Sleep(settle)
		now := inUse()
		if now <= budget || now > used-budget/32 {
			return now
		}
		used = now
	}
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
