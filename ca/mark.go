package ca

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// markSlot is the space of one position in the mark's file. The two do not share a
// disk's block, so that a write that is cut short leaves the other.
const markSlot = 4096

// Position is a place in the log: a record and, by its hash, all before it.
// Sequence 0 is the first line, which names the log.
type Position struct {
	Sequence uint64
	Hash     [sha256.Size]byte
}

// mark is the file beside the log that has the position up to which certificates
// were given out. A log that has it no more was cut, or is another one.
//
// The file is two positions, written in turn and in place: one durable write of a
// file that does not grow costs the disk as little as can be. Owned by the log's
// writer.
type mark struct {
	f    *os.File
	next int // the slot that is written next: the older one
}

// markPath is the mark's place beside a log.
func markPath(log string) string { return strings.TrimSuffix(log, ".log") + ".mark" }

// openMark opens the mark and returns what it has.
func openMark(path string) (m *mark, was Position, err error) {
	content, err := readPrivate(path)
	if err != nil {
		return nil, Position{}, err
	}
	m = &mark{}
	if was, m.next, err = decodeMark(content); err != nil {
		return nil, Position{}, fmt.Errorf("%s: %w", path, err)
	}
	if m.f, err = os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0); err != nil {
		return nil, Position{}, err
	}
	return m, was, nil
}

// put makes a position the durable one.
func (m *mark) put(p Position) error {
	if _, err := m.f.WriteAt(encodeMark(p), int64(m.next)*markSlot); err != nil {
		return err
	}
	if err := (dataSync{m.f}).Sync(); err != nil {
		return err
	}
	m.next = 1 - m.next // only now: what is good is not written over before
	return nil
}

// encodeMark is one slot: the number, the hash, a sum over both, and blanks.
func encodeMark(p Position) []byte {
	text := fmt.Sprintf("%d %x", p.Sequence, p.Hash)
	text = fmt.Sprintf("%s %x", text, sha256.Sum256([]byte(text)))
	return fmt.Appendf(nil, "%-*s\n", markSlot-1, text)
}

// decodeMark returns the newer position of the two, and the slot of the other.
func decodeMark(content []byte) (p Position, other int, err error) {
	good := false
	for slot := range 2 {
		if len(content) < (slot+1)*markSlot {
			break
		}
		if q, ok := decodeSlot(content[slot*markSlot : (slot+1)*markSlot]); ok && (!good || q.Sequence > p.Sequence) {
			p, other, good = q, 1-slot, true
		}
	}
	if !good {
		return Position{}, 0, fmt.Errorf("%w: neither of its two positions is whole", ErrCorrupt)
	}
	return p, other, nil
}

func decodeSlot(slot []byte) (p Position, ok bool) {
	text, sum, found := cutLast(strings.TrimRight(string(slot), " \n"))
	if want := sha256.Sum256([]byte(text)); !found || sum != hex.EncodeToString(want[:]) {
		return Position{}, false
	}
	var hash []byte
	if n, err := fmt.Sscanf(text, "%d %x", &p.Sequence, &hash); n != 2 || err != nil || len(hash) != sha256.Size {
		return Position{}, false
	}
	p.Hash = [sha256.Size]byte(hash)
	return p, true
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// Head is the newest durable record's position.
func (l *Log) Head() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Position{l.last.Load(), l.hash}
}

// Has returns nil if a position is one of this log, and ErrCut otherwise.
func (l *Log) Has(p Position) error {
	head := l.Head()
	if p == head {
		return nil
	}
	if p.Sequence > head.Sequence {
		return fmt.Errorf("%w: it ends at record %d, and had record %d", ErrCut, head.Sequence, p.Sequence)
	}
	there := l.first
	if p.Sequence > 0 {
		records, err := l.Read(p.Sequence, 1)
		if err != nil {
			return err
		}
		there = [sha256.Size]byte(records[0].Hash)
	}
	if there != p.Hash {
		return fmt.Errorf("%w: its record %d is not the one that it had", ErrCut, p.Sequence)
	}
	return nil
}

// Unmarked reports whether OpenLog found no mark beside the log and made one.
func (l *Log) Unmarked() bool { return l.unmarked }

// checkMark opens the mark and holds the log to it. Where there is none (the log is
// of a version that had none, or somebody took it away) it is made for what is there.
func (l *Log) checkMark() error {
	path := markPath(l.path)
	m, was, err := openMark(path)
	if l.unmarked = errors.Is(err, fs.ErrNotExist); l.unmarked {
		at := encodeMark(l.Head())
		if err = replaceFile(path, append(at, at...)); err == nil {
			m, was, err = openMark(path)
		}
	}
	if err != nil {
		return fmt.Errorf("the mark of its end: %w", err)
	}
	if err := l.hasMarked(was); err != nil {
		return errors.Join(err, m.f.Close())
	}
	l.mark = m
	return nil
}

// hasMarked returns nil if the log has what its mark has.
func (l *Log) hasMarked(was Position) error {
	if err := l.Has(was); err != nil {
		return fmt.Errorf("%w, as %s has it: put the whole log back; if there is none, see docs/SIGNER.md, \"Records that are gone\"", err, markPath(l.path))
	}
	return nil
}
