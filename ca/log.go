package ca

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/internal/durable"
	"signet.example/internal/watched"
)

// readStep is how many records lie between two entries of the sparse index.
const readStep = 64

// followEvery bounds how often Wait wakes one who follows.
const followEvery = 20 * time.Millisecond

// lockWait is how long OpenLog waits for another process to let go of the file:
// a signer whose server was killed is gone within moments.
var lockWait = 5 * time.Second // shorter in tests

// Log is the issuance log: append-only, hash-chained, one file, one writer.
// Many goroutines may append, read and wait.
type Log struct {
	path   string
	file   disk
	header header
	first  [sha256.Size]byte // the hash of the first line
	torn   int               // bytes of an incomplete last record that OpenLog cut off
	ended  bool              // false: only the last record's newline is missing

	mark     *mark // nil where the log is no file; see mark
	unmarked bool

	queue   chan *commit   // to the writer
	kick    watched.Signal // something is owed
	stop    chan struct{}
	stopped chan struct{} // closed by the writer when it ends
	once    sync.Once

	last watched.Value[uint64] // sequence number of the newest durable record

	mu      sync.Mutex // guards what follows
	ledger  *ledger    // ahead of what is durable while the writer writes
	newest  time.Time  // latest time of a durable record
	size    int64      // bytes that are durable; the file may be longer for a moment
	hash    [sha256.Size]byte
	index   []checkpoint
	resume  checkpoint // where the last Read ended
	owed    []Record   // abandonments that the next commit writes first
	orphans []Record   // open reservations found by OpenLog
	broken  error      // once set, nothing is written any more
}

// disk is the part of *os.File that the log uses; tests put a failing one in.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// checkpoint is where Read may begin: the chain's state before a record.
type checkpoint struct {
	sequence uint64 // of the record that begins at offset
	offset   int64
	prev     [sha256.Size]byte
}

// OpenLog opens the log that Init made, verifies every record, cuts off an
// incomplete last one, and marks reservations that were never answered as
// abandoned. A record that does not verify is ErrCorrupt, naming it: nothing is
// repaired by guessing. A log that lacks a record of which a certificate was given
// out is ErrCut.
func OpenLog(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open issuance log: %w", err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open issuance log %s: %w", path, err), f.Close())
	}
	l, err := recoverLog(path, dataSync{f}, f)
	if err == nil {
		err = l.checkMark()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open issuance log %s: %w", path, err), f.Close())
	}
	l.start()
	return l, nil
}

// recoverLog takes in what r holds and makes the file end with the last good record.
func recoverLog(path string, file disk, r io.Reader) (*Log, error) {
	l := &Log{
		path: path, file: file, ended: true, ledger: newLedger(),
		queue: make(chan *commit, 64), kick: watched.NewSignal(),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := l.recover(bufio.NewReaderSize(r, maxLine)); err != nil {
		return nil, err
	}
	if err := l.repair(); err != nil {
		return nil, err
	}
	l.last.Set(l.ledger.sequence)
	l.newest = l.ledger.newest
	return l, nil
}

// start ends what was never answered, and starts the writer.
func (l *Log) start() {
	for _, r := range l.ledger.open {
		l.orphans = append(l.orphans, r)
	}
	slices.SortFunc(l.orphans, func(a, b Record) int { return int(a.Sequence) - int(b.Sequence) }) //nolint:gosec // sequences are small
	l.owe(l.orphans, time.Time{}, "the signer ended before it was answered")
	l.flush(nil) // a full disk leaves them owed; reading must go on
	go l.write()
}

// Close waits for what is under way and closes the file.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.stop) })
	<-l.stopped
	if l.mark == nil {
		return l.file.Close()
	}
	return errors.Join(l.file.Close(), l.mark.f.Close())
}

// Origin is the random identity of this log, for the life of the authority.
func (l *Log) Origin() string { return l.header.Origin }

// TrustDomain is the trust domain that the log was made for.
func (l *Log) TrustDomain() string { return l.header.TrustDomain }

// Size is the sequence number of the newest durable record.
func (l *Log) Size() uint64 {
	return l.last.Load()
}

// Newest is the latest time of any durable record.
func (l *Log) Newest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// Orphans are the reservations without an end that OpenLog found, in order. A
// certificate may have been signed for them; none was answered.
func (l *Log) Orphans() []Record { return slices.Clone(l.orphans) }

// Torn is how many bytes of an incomplete last record OpenLog cut off.
func (l *Log) Torn() int { return l.torn }

// Append writes records and returns when they are durable. Each is held to the
// log's rules (a serial is reserved once, and issued or abandoned once after
// that; a key belongs to one SPIFFE ID); one that breaks them is left out, and
// the error says why. If ctx ends first, the outcome is not known.
func (l *Log) Append(ctx context.Context, records ...Record) error {
	_, errs := l.submit(ctx, records)
	return errors.Join(errs...)
}

// Wait blocks until the log has a record after the given sequence number and
// returns the newest one's. It lets more come for a moment: who follows the log is
// woken for many records, not for each.
func (l *Log) Wait(ctx context.Context, after uint64) (uint64, error) {
	for {
		newest, moved := l.last.Get()
		if newest > after {
			return newest, nil
		}
		select {
		case <-moved:
			l.linger(ctx)
		case <-l.stop:
			return 0, fmt.Errorf("%w: closed", ErrLog)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (l *Log) linger(ctx context.Context) {
	t := time.NewTimer(followEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.stop:
	case <-ctx.Done():
	}
}

// Read returns up to n durable records from sequence number from (at least 1)
// on. It verifies the chain of what it reads.
func (l *Log) Read(from uint64, n int) ([]Record, error) {
	from = max(from, 1)
	l.mu.Lock()
	last, size := l.last.Load(), l.size
	at, found := slices.BinarySearchFunc(l.index, from, func(c checkpoint, seq uint64) int {
		switch {
		case c.sequence < seq:
			return -1
		case c.sequence > seq:
			return 1
		}
		return 0
	})
	if !found {
		at-- // the one before; index[0] is record 1
	}
	var start checkpoint
	if at >= 0 {
		start = l.index[at]
	}
	if l.resume.sequence == from { // who follows the log goes on from there
		start = l.resume
	}
	l.mu.Unlock()
	if n <= 0 || from > last {
		return nil, nil
	}
	records, end, err := l.read(start, size, from, min(last, from+uint64(n)-1))
	if err != nil {
		return nil, fmt.Errorf("read issuance log %s: record %d: %w", l.path, end.sequence, err)
	}
	l.mu.Lock()
	l.resume = end
	l.mu.Unlock()
	return records, nil
}

// read returns the records from one sequence number to another, and how far it came.
func (l *Log) read(at checkpoint, size int64, from, to uint64) ([]Record, checkpoint, error) {
	left := size - at.offset
	r := bufio.NewReaderSize(io.NewSectionReader(l.file, at.offset, left), int(min(left, maxLine)))
	records := make([]Record, 0, min(to-from+1, 4096))
	for at.sequence <= to {
		text, err := r.ReadSlice('\n')
		if err != nil {
			return nil, at, err
		}
		record, err := decodeRecord(text[:len(text)-1], at.prev)
		if err == nil && record.Sequence != at.sequence {
			err = fmt.Errorf("it says it is record %d", record.Sequence)
		}
		if err != nil {
			return nil, at, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if at.sequence >= from {
			records = append(records, record)
		}
		at = checkpoint{at.sequence + 1, at.offset + int64(len(text)), [sha256.Size]byte(record.Hash)}
	}
	return records, at, nil
}

// lock takes the file for this process. Two writers would fork the chain.
func lock(f *os.File) error {
	for deadline := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err := durable.Lock(f)
		if err == nil || !errors.Is(err, durable.ErrLocked) {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("another signer uses it")
		}
	}
}

// dataSync is a file whose Sync leaves out metadata that reading back does not
// need; the size is among what fdatasync writes.
type dataSync struct{ *os.File }

func (d dataSync) Sync() error {
	for {
		if err := unix.Fdatasync(int(d.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// knowsAuthority reports whether a signing certificate is recorded. The caller
// sees to it that no record of one is under way.
func (l *Log) knowsAuthority(spki, certificate []byte) bool {
	k, err := prefixOf(spki)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.ledger.authorities[k]) == string(certificate)
}

// checkKey asks the ledger ahead of the reservation, which asks again.
func (l *Log) checkKey(spki []byte, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ledger.checkKey(spki, id)
}

// clip keeps what is written for an operator short.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return strings.ToValidUTF8(s, "?")
	}
	return strings.ToValidUTF8(s[:most], "?") + "…"
}
