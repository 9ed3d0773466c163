package ca

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Checked is what Check found.
type Checked struct {
	TrustDomain spiffeid.TrustDomain
	Head        Position // the log's end
	Lacks       error    // ErrCut if what was asked for is not in the log
}

// Check looks at what Init made as OpenAuthority and OpenLog do, and writes nothing.
// The signer that uses it may run meanwhile. seen is a position of the log that
// somebody else has kept; nil is none.
func Check(dir string, password []byte, profiles Profiles, seen *Position) (Checked, error) {
	a := &Authority{dir: dir, clock: time.Now, log: slog.New(slog.DiscardHandler), password: password, check: true}
	if err := a.open(); err != nil {
		return Checked{}, fmt.Errorf("open authority %s: %w", dir, err)
	}
	found := Checked{TrustDomain: a.td}
	err := found.checkLog(LogPath(dir), seen)
	return found, errors.Join(profiles.Check(a), err)
}

// checkLog reads the whole log, verifies its chain and holds it to its mark. Its end
// may be incomplete: a signer that runs is writing it, and one that was killed is
// repaired by the next.
func (c *Checked) checkLog(path string, seen *Position) error {
	// The mark first: a signer that runs writes it after the records that it marks.
	m, was, unmarked := openMark(markPath(path))
	if unmarked == nil {
		defer func() { _ = m.f.Close() }() // nothing was written
	} else if !errors.Is(unmarked, fs.ErrNotExist) { // an opening makes one
		return fmt.Errorf("open issuance log %s: the mark of its end: %w", path, unmarked)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // as an opening needs it
	if err != nil {
		return fmt.Errorf("open issuance log: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	l := &Log{path: path, file: dataSync{f}, ended: true, ledger: newLedger()}
	if err = l.recover(bufio.NewReaderSize(f, maxLine)); err == nil {
		l.last.Set(l.ledger.sequence)
		if c.Head = l.Head(); unmarked == nil {
			err = l.hasMarked(was)
		}
	}
	if err != nil {
		return fmt.Errorf("open issuance log %s: %w", path, err)
	}
	if seen == nil {
		return nil
	}
	if c.Lacks = l.Has(*seen); c.Lacks != nil && !errors.Is(c.Lacks, ErrCut) {
		return c.Lacks
	}
	return nil
}
