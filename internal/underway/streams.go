package underway

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Why nothing more is read of a connection.
var (
	// errIllegal: gRPC answers what came with the connection's end, keeps that answer where it
	// is not read, and goes on reading.
	errIllegal = errors.New("headers of a stream that cannot begin")
	// errMany: nobody who means them leaves so many unfinished, and none is not counted.
	errMany = errors.New("too many messages are not whole")
	// ErrUnmeant: gRPC would refuse each such call, at some cost, and read on.
	ErrUnmeant = errors.New("too many calls of methods that there are not, or without a message")
)

const (
	// perOpen is what gRPC keeps for a stream beside its headers.
	perOpen = 512
	// perEcho is a byte, and how long it may be in a refusal that quotes it.
	perEcho = 1 + len(`\xff`)
	// maxHeader is what every server of ours takes as headers.
	maxHeader = 16 << 10
)

// streams are those that are open on a connection: from their headers on, and until their
// end was written or they were reset. A stats.Handler sees the calls that gRPC begins; what
// it refuses before that, it keeps until its answer is written.
type streams struct {
	mu   sync.Mutex // guards the following
	open map[uint32]opened
	// What was reset and gRPC's writer has not passed: gRPC keeps the stream, with what
	// was sent on it and its answer, in what waits for the writer.
	over, fresh kept // fresh: gRPC itself may not have read of it yet
	look        *time.Timer
	last        time.Time // that one was reset

	waits atomic.Bool // something is over

	// The following are of whoever reads.
	resets  bool   // something is fresh
	highest uint32 // that began
	fields  *hpack.Decoder
	size    int // of the headers that are being read, as they are kept
	methods Methods
	method  bool // whose method there is; of the headers that are being read, as is the next
	empty   bool // which no message will follow
	unmeant int  // calls that are refused whatever comes, of what was taken last
}

// opened is what is kept for an open stream.
type opened struct {
	headers int
	unread  int // of a message that its client will not complete, and of pieces that were too many
	settled uint64
}

// kept is what gRPC has for streams that were reset: how many, and bytes.
type kept struct{ streams, headers, unread int }

func (k *kept) add(o kept) {
	k.streams, k.headers, k.unread = k.streams+o.streams, k.headers+o.headers, k.unread+o.unread
}

// reset notes that its client gave a stream up, and reports whether it was open: what was
// kept for it is kept until gRPC's writer has passed it, and with it unread bytes more.
func (s *streams) reset(id uint32, unread int, settled uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.open[id]
	if !ok {
		return false
	}
	delete(s.open, id)
	if o.settled == settled {
		unread += o.unread
	}
	s.fresh.add(kept{1, o.headers, unread})
	s.resets = true
	return true
}

// handled notes that gRPC has handled all that was read so far.
func (s *streams) handled() {
	if !s.resets {
		return
	}
	s.resets = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over.add(s.fresh)
	s.fresh = kept{}
	s.waits.Store(true)
}

// passed notes that gRPC's writer has passed all that it was given, and returns what is
// no longer kept.
func (s *streams) passed() kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.over
	s.over = kept{}
	s.waits.Store(false)
	return o
}

// many is how many streams are open or not passed.
func (s *streams) many() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open) + s.over.streams + s.fresh.streams
}

// begin notes a stream at its headers' first byte.
func (s *streams) begin(id uint32, empty bool) (keeps int, err error) {
	if id%2 == 0 || id <= s.highest { // RFC 9113 5.1.1
		return 0, errIllegal
	}
	s.highest = id
	if s.fields == nil {
		s.fields = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
			s.size += len(f.Name) + perEcho*len(f.Value) + 32 // RFC 9113 6.5.2
			if f.Name == ":path" {
				s.method = s.methods[f.Value]
			}
		})
		s.fields.SetMaxStringLength(maxHeader)
	}
	s.size, s.method, s.empty = 0, false, empty
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[id] = opened{headers: perOpen}
	return perOpen, nil
}

// block follows a part of the headers of the stream that began last: a few bytes of it may
// stand for many.
func (s *streams) block(b []byte) error {
	if s.fields == nil {
		return nil // of no stream, which gRPC refuses
	}
	_, err := s.fields.Write(b)
	return err
}

// began notes that the headers are whole.
func (s *streams) began(id uint32) (keeps int, err error) {
	if s.fields == nil {
		return 0, nil
	}
	keeps, s.size = s.size, 0
	if s.methods != nil && (!s.method || s.empty) {
		s.unmeant++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.open[id]; ok { // nothing can have ended it before they were whole, but a server that stops
		o.headers += keeps
		s.open[id] = o
		return keeps, s.fields.Close()
	}
	return 0, s.fields.Close()
}

// unread notes bytes that nobody will tell of when they are read, and reports whether gRPC
// keeps them: until the call is over.
func (s *streams) unread(id uint32, n int, settled uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.open[id]
	if ok {
		if o.settled != settled { // given back
			o.unread, o.settled = 0, settled
		}
		o.unread += n
		s.open[id] = o
	}
	return ok
}

// has reports whether a stream is open.
func (s *streams) has(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.open[id]
	return ok
}

// end notes that a stream is over, and returns what was kept for it.
func (s *streams) end(id uint32) opened {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[id]
	delete(s.open, id)
	return o
}

// none reports whether no stream is open, and none is kept that was.
func (s *streams) none() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)+s.over.streams+s.fresh.streams == 0
}

// written follows the frames that gRPC writes, as far as they end streams or carry messages.
type written struct {
	header [frameHeader]byte
	have   int // bytes of header
	left   int // bytes of the payload that are still to come
}

// take follows b, and calls ended for each stream whose end is in it. It returns how many
// bytes of messages are.
func (w *written) take(b []byte, ended func(id uint32)) (messages int) {
	for len(b) > 0 {
		if w.left == 0 {
			k := copy(w.header[w.have:], b)
			w.have, b = w.have+k, b[k:]
			if w.have < frameHeader {
				return messages
			}
			w.left = int(w.header[0])<<16 | int(w.header[1])<<8 | int(w.header[2])
		}
		kind := w.header[3]
		k := min(w.left, len(b))
		w.left, b = w.left-k, b[k:]
		if kind == frameData {
			messages += k
		}
		if w.left > 0 {
			return messages
		}
		w.have = 0
		if kind == frameReset || kind <= frameHeaders && w.header[4]&endStream != 0 {
			ended(binary.BigEndian.Uint32(w.header[5:]) &^ (1 << 31))
		}
	}
	return messages
}
