package child

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits that a child is held to; zero is none. They are set before Start returns,
// so a child that waits for its input reads nothing without them.
type Limits struct {
	// AddressSpace in bytes (RLIMIT_AS). A Go program reserves hundreds of MiB that
	// it never uses: for such a one Data is the limit.
	AddressSpace uint64
	// Data in bytes (RLIMIT_DATA): writable private memory, the heap of a Go program.
	Data uint64
	// CPU is processor time, in whole seconds (RLIMIT_CPU).
	CPU time.Duration
	// Files is the number of descriptors (RLIMIT_NOFILE).
	Files uint64
	// FileSize in bytes (RLIMIT_FSIZE) of what it may write.
	FileSize uint64
	// RSS in bytes of memory in use: looked at every rssPoll, and killed above.
	RSS uint64
	// Deadline is how long it may live.
	Deadline time.Duration
}

// rssPoll is how often RSS is looked at: a process fills some 10 to 50 MiB meanwhile.
const rssPoll = 10 * time.Millisecond

// LimitError is how a child ended that was killed for a limit.
type LimitError struct {
	// What was exceeded: "memory" or "deadline".
	What string
	// Limit as text.
	Limit string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("killed: %s is over its limit of %s", e.What, e.Limit)
}

// limit holds a child that has just started to its limits.
func (p *Process) limit(l Limits) error {
	seconds := uint64((l.CPU + time.Second - 1) / time.Second) //nolint:gosec // not negative
	for _, r := range []struct {
		which int
		name  string
		value uint64
	}{
		{unix.RLIMIT_AS, "RLIMIT_AS", l.AddressSpace},
		{unix.RLIMIT_DATA, "RLIMIT_DATA", l.Data},
		{unix.RLIMIT_CPU, "RLIMIT_CPU", seconds},
		{unix.RLIMIT_NOFILE, "RLIMIT_NOFILE", l.Files},
		{unix.RLIMIT_FSIZE, "RLIMIT_FSIZE", l.FileSize},
	} {
		if r.value == 0 {
			continue
		}
		// Of its own user's processes anybody may lower the limits.
		if err := unix.Prlimit(p.PID(), r.which, &unix.Rlimit{Cur: r.value, Max: r.value}, nil); err != nil {
			return fmt.Errorf("%s of %d: %w", r.name, r.value, err)
		}
	}
	if l.RSS == 0 && l.Deadline == 0 {
		return nil
	}
	w := watch{p: p, limits: l, begun: time.Now()}
	if l.RSS > 0 {
		// Opened now: a child that makes itself not dumpable can be hidden later.
		statm, err := os.Open("/proc/" + strconv.Itoa(p.PID()) + "/statm")
		if err != nil {
			return fmt.Errorf("watch its memory: %w", err)
		}
		w.statm = statm
	}
	go w.run() // ends with the child
	return nil
}

// watch kills a child that is over a limit which the kernel does not hold it to.
type watch struct {
	p      *Process
	limits Limits
	begun  time.Time
	statm  *os.File // nil where memory is not limited
}

func (w *watch) run() {
	poll := w.limits.Deadline
	if w.statm != nil {
		defer func() { _ = w.statm.Close() }() // read only
		poll = rssPoll
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-w.p.done:
			return
		case <-tick.C:
		}
		if err := w.exceeded(); err != nil {
			w.p.over <- err
			w.p.kill()
			return
		}
	}
}

func (w *watch) exceeded() error {
	if d := w.limits.Deadline; d > 0 && time.Since(w.begun) >= d {
		return &LimitError{What: "deadline", Limit: d.String()}
	}
	if w.statm != nil && w.rss() > w.limits.RSS {
		return &LimitError{What: "memory", Limit: strconv.FormatUint(w.limits.RSS>>20, 10) + " MiB"}
	}
	return nil
}

// rss is 0 for a child that has ended meanwhile.
func (w *watch) rss() uint64 {
	var buf [128]byte
	n, _ := w.statm.ReadAt(buf[:], 0) // io.EOF after the one line
	fields := strings.Fields(string(buf[:n]))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize()) //nolint:gosec // positive
}
