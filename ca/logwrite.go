package ca

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxGroup bounds how many records one write and one fsync carry.
const maxGroup = 4096

// commit is records on their way through the writer.
type commit struct {
	records []Record
	errs    []error // one for each record, set by the writer before done closes
	done    chan struct{}
	// settled: whoever sets it first decides. The writer does when the outcome
	// is known, the caller when its context ends before; reservations that
	// nobody waits for any more are then abandoned by the writer.
	settled atomic.Bool
}

// submit hands records to the writer and waits. The records come back with
// their sequence numbers and hashes; an error stands at the index of its record.
func (l *Log) submit(ctx context.Context, records []Record) ([]Record, []error) {
	// A caller that leaves early may use its slice again while the writer works.
	records = slices.Clone(records)
	c := &commit{records: records, errs: make([]error, len(records)), done: make(chan struct{})}
	fail := func(err error) ([]Record, []error) {
		errs := make([]error, len(records))
		for i := range errs {
			errs[i] = err
		}
		return nil, errs
	}
	select {
	case l.queue <- c:
	case <-ctx.Done():
		return fail(fmt.Errorf("%w: %w", ErrLog, ctx.Err()))
	case <-l.stop:
		return fail(fmt.Errorf("%w: closed", ErrLog))
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.settled.CompareAndSwap(false, true) {
			return fail(fmt.Errorf("%w in time: %w", ErrLog, ctx.Err()))
		}
		<-c.done
	case <-l.stopped:
		if c.settled.CompareAndSwap(false, true) {
			return fail(fmt.Errorf("%w: closed", ErrLog))
		}
		<-c.done
	}
	return c.records, c.errs
}

// write is the writer: the only goroutine that changes file and ledger. While
// one fsync runs, the next group gathers in the queue.
func (l *Log) write() {
	defer close(l.stopped)
	for {
		select {
		case c := <-l.queue:
			l.flush(l.gather(c))
		case <-l.kick:
			l.flush(nil)
		case <-l.stop:
			if len(l.queue) == 0 {
				return
			}
			l.flush(l.gather(<-l.queue))
		}
	}
}

func (l *Log) gather(first *commit) []*commit {
	group := []*commit{first}
	for n := len(first.records); n < maxGroup; {
		select {
		case c := <-l.queue:
			group = append(group, c)
			n += len(c.records)
		default:
			return group
		}
	}
	return group
}

// batch is one group being made: nothing of it is visible before it is durable.
type batch struct {
	buf   []byte
	hash  [sha256.Size]byte
	marks []checkpoint
	undo  []func()
	// issued: it has a record of a certificate that is given out when this returns.
	issued bool
}

// flush writes what is owed and a group of commits with one fsync. All or
// nothing of it counts.
func (l *Log) flush(group []*commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &batch{hash: l.hash}
	owed := l.owed
	l.owed = nil
	for i := range owed {
		// A reservation that failed needs no end: its error is dropped.
		_ = l.add(b, &owed[i])
	}
	for _, c := range group {
		for i := range c.records {
			c.errs[i] = l.add(b, &c.records[i])
		}
	}
	err := l.persist(b)
	if err != nil {
		for _, undo := range slices.Backward(b.undo) {
			undo()
		}
		l.owed = append(owed, l.owed...)
	}
	var unmarked error
	if err == nil && b.issued && l.mark != nil {
		unmarked = l.putMark(Position{l.last.Load(), l.hash})
	}
	for _, c := range group {
		for i, r := range c.records {
			if c.errs[i] == nil && r.Kind == KindIssued {
				c.errs[i] = unmarked
			}
		}
		l.settle(c, err)
	}
}

// putMark makes it durable that the log has come this far, before a certificate is
// given out. The mutex is let go for the time of writing, as in persist. After an
// error the records stand, and nobody gets the certificates.
func (l *Log) putMark(p Position) error {
	l.mu.Unlock()
	defer l.mu.Lock()
	if err := l.mark.put(p); err != nil {
		return fmt.Errorf("%w: the mark of its end: %w", ErrLog, err)
	}
	return nil
}

// add puts a record into the batch, if the ledger lets it follow.
func (l *Log) add(b *batch, r *Record) error {
	next := *r
	next.Sequence = l.ledger.sequence + 1
	if next.Time.IsZero() {
		next.Time = l.ledger.newest
	}
	next.Time = next.Time.Round(0).UTC()
	if err := l.ledger.check(next); err != nil {
		return err
	}
	at := l.size + int64(len(b.buf))
	buf, hash, err := encodeRecord(b.buf, b.hash, next)
	if err != nil {
		return err
	}
	next.Hash = hash[:]
	if next.Sequence%readStep == 1 {
		b.marks = append(b.marks, checkpoint{next.Sequence, at, b.hash})
	}
	b.buf, b.hash = buf, hash
	b.issued = b.issued || next.Kind == KindIssued
	b.undo = append(b.undo, l.ledger.apply(next))
	*r = next
	return nil
}

// persist makes a batch durable and moves the end of the log behind it. The
// mutex is let go for the time of writing; only this goroutine moves the end.
func (l *Log) persist(b *batch) error {
	if l.broken != nil {
		return l.broken
	}
	if len(b.buf) == 0 {
		return nil
	}
	size := l.size
	l.mu.Unlock()
	fatal, err := writeOut(l.file, b.buf, size)
	l.mu.Lock()
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrLog, l.path, err)
		if fatal {
			l.broken = err
		}
		return err
	}
	l.size += int64(len(b.buf))
	l.hash = b.hash
	l.newest = l.ledger.newest
	l.index = append(l.index, b.marks...)
	l.last.Set(l.ledger.sequence)
	return nil
}

// writeOut writes and syncs. After a failure the file is cut back to size, so
// that what was not acknowledged is not there either, and the next try starts
// from clean ground: a full disk heals when space returns. It is fatal when the
// file cannot be brought back, or when fsync failed for another reason than
// space: the kernel may then have dropped pages that it calls clean, and only
// reading the file again (a restart) tells what is on it.
func writeOut(f disk, buf []byte, size int64) (fatal bool, err error) {
	_, err = f.WriteAt(buf, size)
	if err == nil {
		if err = f.Sync(); err == nil {
			return false, nil
		}
		fatal = !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT)
	}
	if cut := f.Truncate(size); cut != nil {
		return true, errors.Join(err, cut)
	}
	return fatal, err
}

// settle hands a caller the outcome, or cleans up after one who left.
func (l *Log) settle(c *commit, err error) {
	for i := range c.errs {
		if c.errs[i] == nil {
			c.errs[i] = err
		}
	}
	if !c.settled.CompareAndSwap(false, true) {
		var left []Record
		for i, r := range c.records {
			if c.errs[i] == nil && r.Kind == KindReserved {
				left = append(left, r)
			}
		}
		l.owe(left, time.Time{}, "the requester did not wait")
	}
	close(c.done)
}

// abandon ends reservations that will not be answered. It does not wait: the
// record is written with the next group, or at the next open.
func (l *Log) abandon(reserved []Record, now time.Time, reason string) {
	l.mu.Lock()
	l.owe(reserved, now, reason)
	l.mu.Unlock()
}

// owe queues abandonments; the caller holds the mutex.
func (l *Log) owe(reserved []Record, now time.Time, reason string) {
	for _, r := range reserved {
		l.owed = append(l.owed, Record{
			Time: now, Kind: KindAbandoned, Serial: r.Serial, ID: r.ID, Requester: r.Requester,
			Profile: r.Profile, NotBefore: r.NotBefore, NotAfter: r.NotAfter, SPKI: r.SPKI,
			Issuer: r.Issuer, Reason: clip(reason),
		})
	}
	if len(l.owed) > 0 {
		l.kick.Wake()
	}
}
