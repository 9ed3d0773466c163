package ca

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// recover reads the whole file into the ledger. It returns with size and hash
// at the last good record and torn at the bytes behind it.
func (l *Log) recover(r *bufio.Reader) error {
	text, err := r.ReadSlice('\n')
	if err != nil { // Init writes the first line before the file gets its name
		return fmt.Errorf("%w: the first line, which names the log, is not whole: %w", ErrCorrupt, err)
	}
	hash, err := unseal(text[:len(text)-1], chainStart, &l.header)
	if err != nil {
		return fmt.Errorf("%w: the first line, which names the log: %w", ErrCorrupt, err)
	}
	if l.header.Format != logFormat {
		return fmt.Errorf("%w: format %q: want %q", ErrCorrupt, clip(l.header.Format), logFormat)
	}
	l.first, l.hash, l.size = hash, hash, int64(len(text))
	for {
		text, err := r.ReadSlice('\n')
		switch {
		case err == nil:
			if err := l.recoverRecord(text); err != nil {
				return l.corrupt(err)
			}
		case errors.Is(err, io.EOF):
			return l.recoverTail(text)
		case errors.Is(err, bufio.ErrBufferFull):
			return l.corrupt(fmt.Errorf("longer than %d bytes", maxLine))
		default:
			return fmt.Errorf("record %d: %w", l.ledger.sequence+1, err)
		}
	}
}

// recoverRecord takes one whole line into the ledger.
func (l *Log) recoverRecord(text []byte) error {
	record, err := decodeRecord(bytes.TrimSuffix(text, []byte("\n")), l.hash)
	if err != nil {
		return err
	}
	if want := l.ledger.sequence + 1; record.Sequence != want {
		return fmt.Errorf("it says it is record %d", record.Sequence)
	}
	if err := l.ledger.check(record); err != nil {
		return err
	}
	l.note(record, int64(len(text)))
	return nil
}

// note moves the end of the log behind a record of n bytes.
func (l *Log) note(r Record, n int64) {
	l.markIndex(r.Sequence, l.size, l.hash)
	l.ledger.apply(r)
	l.size += n
	l.hash = [sha256.Size]byte(r.Hash)
}

func (l *Log) markIndex(sequence uint64, offset int64, prev [sha256.Size]byte) {
	if sequence%readStep == 1 {
		l.index = append(l.index, checkpoint{sequence, offset, prev})
	}
}

// recoverTail judges what follows the last newline. A write that was cut short
// leaves the beginning of a record: that was never answered and is dropped. A
// whole record that something else follows was not cut short but changed.
func (l *Log) recoverTail(tail []byte) error {
	if len(tail) == 0 {
		return nil
	}
	if _, err := decodeRecord(tail, l.hash); err == nil {
		// Only the newline is missing. Dropping a record that is there would be
		// the greater wrong: repair writes the newline.
		if err := l.recoverRecord(tail); err != nil {
			return l.corrupt(err)
		}
		l.ended = false
		return nil
	}
	for at := 0; ; {
		i := bytes.Index(tail[at:], []byte(hashPrefix))
		if i < 0 || at+i+hashLen > len(tail) {
			l.torn = len(tail)
			return nil
		}
		at += i
		if _, err := decodeRecord(tail[:at+hashLen], l.hash); err == nil {
			return l.corrupt(errors.New("it is whole, but no newline follows it"))
		}
		at++
	}
}

func (l *Log) corrupt(err error) error {
	return fmt.Errorf("%w: record %d (at byte %d): %w", ErrCorrupt, l.ledger.sequence+1, l.size, err)
}

// repair makes the file end where recover found the last good record.
func (l *Log) repair() error {
	switch {
	case !l.ended:
		if _, err := l.file.WriteAt([]byte("\n"), l.size); err != nil {
			return fmt.Errorf("end the last record: %w", err)
		}
		l.size++
	case l.torn == 0:
		return nil
	default:
		if err := l.file.Truncate(l.size); err != nil {
			return fmt.Errorf("cut off an incomplete last record: %w", err)
		}
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("repair the end: %w", err)
	}
	return nil
}
