package authzproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"signet.example/authz"
	"signet.example/internal/child"
)

// The journal is memory that the authz process shares with the keys process: what it
// is evaluating now. It outlives that process, however it ends, and is read without
// asking it. Its content is the authz process' word and no more: it can deny by it,
// as it can anyway, and the reader takes nothing from it but text of bounded length.
const (
	journalSlots = 256 // as many evaluations as are made at a time (authz)
	slotBytes    = 4096
	slotHead     = 8 // the turn, and the thread
	slotText     = slotBytes - slotHead - 4
	// maxDestination and maxRevisionID are what fits; no identity and no revision is longer.
	maxDestination = 2048
	maxRevisionID  = 128
)

// journal is one end of it.
type journal struct {
	memory []byte
	free   chan int // slots that are not in use; of the writing end
}

// newJournal makes the memory. It is sealed: whoever holds it cannot shrink it under
// the reader, which that would end.
func newJournal() (*journal, *os.File, error) {
	f, err := child.Sealed("evaluations", 0, func(f *os.File) error { return f.Truncate(journalSlots * slotBytes) })
	if err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	j, err := mapJournal(f, unix.PROT_READ)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return j, f, nil
}

// openJournal is the writing end. It closes f.
func openJournal(f *os.File) (*journal, error) {
	j, err := mapJournal(f, unix.PROT_READ|unix.PROT_WRITE)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	j.free = make(chan int, journalSlots)
	for i := range journalSlots {
		j.free <- i
	}
	return j, nil
}

func mapJournal(f *os.File, prot int) (*journal, error) {
	memory, err := unix.Mmap(int(f.Fd()), 0, journalSlots*slotBytes, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("journal: mmap: %w", err)
	}
	return &journal{memory: memory}, nil
}

// Close must not be called while anything else is.
func (j *journal) Close() error { return unix.Munmap(j.memory) }

// turn of a slot is even while it is free, odd while it is in use, and another one
// for each evaluation, and each time that one goes on after it let others.
func (j *journal) turn(slot int) *uint32 {
	return (*uint32)(unsafe.Pointer(&j.memory[slot*slotBytes])) //nolint:gosec // aligned: slots are
}

// lock has this goroutine keep its thread, which is noted.
func (j *journal) lock(slot int) {
	runtime.LockOSThread()
	atomic.StoreUint32(j.thread(slot), uint32(unix.Gettid())) //nolint:gosec // positive
}

// unlock gives the thread up: what that does from now on is not the evaluation's.
func (j *journal) unlock(slot int) {
	atomic.StoreUint32(j.thread(slot), noThread)
	runtime.UnlockOSThread()
}

// goOn locks again after unlock. The turn is another one, and odd still: whoever lets others go on
// has ended its step, and the next step is watched from its own beginning.
func (j *journal) goOn(slot int) {
	atomic.AddUint32(j.turn(slot), 2)
	j.lock(slot)
}

// noThread is that of an evaluation which waits for one.
const noThread = 0

// thread is that of a slot's evaluation.
func (j *journal) thread(slot int) *uint32 {
	return (*uint32)(unsafe.Pointer(&j.memory[slot*slotBytes+4])) //nolint:gosec // aligned: slots are
}

// begin notes an evaluation until end is called, by the goroutine that makes it: it has its
// thread to itself, so that what that uses of the processors is the evaluation's. To let others
// go on it calls yield, which gives the thread up: a switch of threads is dear.
func (j *journal) begin(e authz.Evaluation) (yield, end func()) {
	select {
	case slot := <-j.free:
		j.lock(slot)
		at := j.memory[slot*slotBytes+slotHead : (slot+1)*slotBytes]
		d, r := e.Destination[:min(len(e.Destination), maxDestination)], e.Revision[:min(len(e.Revision), maxRevisionID)]
		binary.NativeEndian.PutUint16(at, uint16(len(d)))     //nolint:gosec // bounded
		binary.NativeEndian.PutUint16(at[2:], uint16(len(r))) //nolint:gosec // bounded
		copy(at[4:], d)
		copy(at[4+len(d):], r)
		atomic.AddUint32(j.turn(slot), 1)
		yield = func() {
			j.unlock(slot)
			runtime.Gosched()
			j.goOn(slot)
		}
		return yield, func() {
			atomic.AddUint32(j.turn(slot), 1)
			runtime.UnlockOSThread()
			j.free <- slot
		}
	default: // never, as there are as many slots as evaluations
		return runtime.Gosched, func() {}
	}
}

// entry is a slot in use.
type entry struct {
	turn   uint32
	thread uint32 // that makes it, of the process, or noThread
	authz.Evaluation
}

// entries are the evaluations under way, by slot.
func (j *journal) entries() map[int]entry {
	var all map[int]entry
	for slot := range journalSlots {
		turn := atomic.LoadUint32(j.turn(slot))
		if turn%2 == 0 {
			continue
		}
		thread := atomic.LoadUint32(j.thread(slot))
		at := j.memory[slot*slotBytes+slotHead : (slot+1)*slotBytes]
		d, r := int(binary.NativeEndian.Uint16(at)), int(binary.NativeEndian.Uint16(at[2:]))
		if d > maxDestination || r > maxRevisionID || 4+d+r > slotText {
			continue
		}
		e := entry{turn, thread, authz.Evaluation{Destination: string(at[4 : 4+d]), Revision: string(at[4+d : 4+d+r])}}
		if atomic.LoadUint32(j.turn(slot)) != turn {
			continue // it ended meanwhile
		}
		if all == nil {
			all = map[int]entry{}
		}
		all[slot] = e
	}
	return all
}
