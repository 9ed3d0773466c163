package underway

import (
	"encoding/binary"
	"maps"
	"sync/atomic"
)

// frames follows what comes over an HTTP/2 connection as far as it is to be counted:
// which bytes are of messages, and where those end; which streams are open; and what
// makes gRPC answer. It judges only what gRPC would refuse without end: gRPC refuses the
// rest of what is wrong. What it keeps is bounded by the streams that are open.
type frames struct {
	preface int // bytes of it that are still to come
	header  [frameHeader]byte
	have    int  // bytes of header
	left    int  // bytes of the payload that are still to come
	pad     int  // bytes of padding that come after it
	padded  bool // the byte that says how many is still to come
	skip    int  // bytes of the payload that are of neither headers nor messages
	data    bool
	block   bool // of headers
	stream  uint32
	within  map[uint32]*message // streams that are within a message
	// settled is how often everything was given back: what was counted before is not
	// given back again.
	settled *atomic.Uint64

	streams *streams // nil where only messages are followed
	// The following are of what was taken last.
	begun   int   // frames
	calls   int   // of these, streams that begin
	keeps   int   // what came or went for open streams
	control int   // what makes gRPC answer
	err     error // nothing after it is followed
}

// message is one that is not whole.
type message struct {
	prefix  [prefixLen]byte
	have    int // bytes of prefix
	left    int // bytes that are still to come after it
	size    int // bytes of it so far
	pieces  int // in how many more than one it came
	extra   int // what was counted for those, and for padding
	counted int // what was counted for it so far
	settled uint64
}

const (
	prefaceLen  = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	frameHeader = 9 // RFC 9113 4.1
	prefixLen   = 5 // of a gRPC message: compressed or not, and its length
	// Types of frames, and the flags of one that is a stream's last and of one with
	// padding.
	frameData, frameHeaders, frameReset = 0, 1, 3
	frameSettings, framePing            = 4, 6
	frameWindow, frameContinuation      = 8, 9
	endStream, endHeaders               = 1, 4
	hasPadding, hasPriority             = 8, 32
	priorityLen                         = 5
	// mostWithin bounds the messages that are followed, and so those that a client may leave
	// unfinished. No server of ours takes more than a thousand calls of a connection.
	mostWithin = 4096
	// A message that is meant comes in few pieces: frames have 16 KiB, and what cuts them
	// short are windows, and segments on the way.
	fewPieces, usualPiece = 2, 1024
)

func newFrames(settled *atomic.Uint64, s *streams) frames {
	return frames{preface: prefaceLen, within: map[uint32]*message{}, settled: settled, streams: s}
}

// take follows b and returns what it adds to the sum.
func (f *frames) take(b []byte) int {
	n := 0
	f.begun, f.calls, f.keeps, f.control = 0, 0, 0, 0
	for len(b) > 0 && f.err == nil {
		switch {
		case f.preface > 0:
			skip := min(f.preface, len(b))
			f.preface, b = f.preface-skip, b[skip:]
		case f.have < frameHeader:
			k := copy(f.header[f.have:], b)
			f.have, b = f.have+k, b[k:]
			if f.have == frameHeader {
				n += f.begin()
			}
		case f.padded: // RFC 9113 6.1
			f.left--
			f.pad = min(int(b[0]), f.left) // gRPC closes the connection where it is more
			f.left -= f.pad
			f.padded, b = false, b[1:]
			n += f.piece()
		case f.skip > 0:
			k := min(f.skip, f.left, len(b))
			f.skip, f.left, b = f.skip-k, f.left-k, b[k:]
			if f.left == 0 {
				f.skip = 0
			}
		case f.left > 0:
			k := min(f.left, len(b))
			switch {
			case f.data:
				n += f.payload(b[:k])
			case f.block && f.streams != nil:
				f.err = f.streams.block(b[:k])
			}
			f.left, b = f.left-k, b[k:]
		default: // gRPC hands it to nobody, so that it is of no message
			k := min(f.pad, len(b))
			f.pad, b = f.pad-k, b[k:]
		}
		if f.have == frameHeader && f.left+f.pad == 0 {
			n += f.end()
			f.have = 0
		}
	}
	return n
}

// begin reads the header of a frame.
func (f *frames) begin() int {
	f.begun++
	f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	f.stream = binary.BigEndian.Uint32(f.header[5:]) &^ (1 << 31)
	kind, flags := f.header[3], f.header[4]
	f.data, f.block = kind == frameData, kind == frameHeaders || kind == frameContinuation
	f.padded = kind <= frameHeaders && flags&hasPadding != 0 && f.left > 0
	f.skip = 0
	switch kind {
	case frameHeaders:
		f.calls++
		if flags&hasPriority != 0 {
			f.skip = priorityLen
		}
		if f.streams != nil {
			keeps, err := f.streams.begin(f.stream, flags&endStream != 0)
			f.keeps, f.err = f.keeps+keeps, err
		}
		return f.drop() // a stream begins: what came before was of none, and gRPC dropped it
	case frameReset, frameSettings, framePing, frameWindow:
		f.control += perControl + 2*f.left
	}
	if f.padded {
		return 0 // until it is known what is left
	}
	return f.piece()
}

// piece counts a frame of a message that began in another. gRPC keeps its padding with it.
func (f *frames) piece() int {
	m := f.within[f.stream]
	if !f.data || m == nil || f.left == 0 {
		return 0
	}
	m.pieces++
	return m.more(perPiece + f.pad)
}

// more counts n bytes that are of no message.
func (m *message) more(n int) int {
	m.extra += n
	m.counted += n
	return n
}

// many reports whether it came in more pieces than one does that is meant, or padded, which
// no client of gRPC does.
func (m *message) many() bool {
	return m.pieces > fewPieces+m.size/usualPiece || m.extra > m.pieces*perPiece
}

// end comes after a frame's last byte. A message that its stream's end cuts off is kept by
// gRPC until the call is over; what was sent on a stream that is reset, until its writer has
// passed the stream.
func (f *frames) end() int {
	kind, flags := f.header[3], f.header[4]
	switch {
	case kind == frameReset:
		dropped := f.drop()
		if f.streams != nil && f.streams.reset(f.stream, -dropped, f.settled.Load()) {
			return 0 // until gRPC's writer has passed it
		}
		return dropped
	case kind == frameData && flags&endStream != 0:
		m := f.within[f.stream]
		if m == nil || f.streams == nil || !f.streams.unread(f.stream, m.counted, m.settled) {
			return f.drop()
		}
		delete(f.within, f.stream)
	case f.block && flags&endHeaders != 0 && f.streams != nil && f.err == nil:
		keeps, err := f.streams.began(f.stream)
		f.keeps, f.err = f.keeps+keeps, err
	}
	return 0
}

// drop forgets what a stream is within, and returns what that takes off the sum.
func (f *frames) drop() int {
	m := f.within[f.stream]
	if m == nil {
		return 0
	}
	delete(f.within, f.stream)
	if m.settled != f.settled.Load() {
		return 0
	}
	return -m.counted
}

// forgets forgets messages of streams that the server ended, and reports whether there were
// any. What was counted for them is given back with everything.
func (f *frames) forgets() bool {
	had := len(f.within)
	if f.streams != nil {
		maps.DeleteFunc(f.within, func(id uint32, _ *message) bool { return !f.streams.has(id) })
	}
	return len(f.within) < had
}

// payload follows bytes of messages. Each that is whole is counted as one piece until it is
// read. Until then gRPC keeps the pieces as they came, which is no more than its bytes
// where they are not many. Where they are, they count until the stream is over: nobody
// says of which stream a message is that is read.
func (f *frames) payload(b []byte) int {
	n := 0
	for len(b) > 0 {
		m := f.within[f.stream]
		if m == nil {
			switch {
			case f.streams != nil && !f.streams.has(f.stream):
				return n // gRPC drops it
			case len(f.within) >= mostWithin && !f.forgets():
				f.err = errMany
				return n
			}
			m = &message{counted: perPiece, settled: f.settled.Load()}
			f.within[f.stream] = m
			n += perPiece + m.more(f.pad)
		}
		k := 0
		if m.have < prefixLen {
			k = copy(m.prefix[m.have:], b)
			if m.have += k; m.have == prefixLen {
				m.left = int(binary.BigEndian.Uint32(m.prefix[1:]))
			}
		} else {
			k = min(m.left, len(b))
			m.left -= k
		}
		n += k
		m.counted += k
		m.size += k
		b = b[k:]
		if m.have == prefixLen && m.left == 0 {
			switch {
			case m.settled != f.settled.Load(): // of a call that is over: given back with everything
			case !m.many(), f.streams == nil, !f.streams.unread(f.stream, m.extra, m.settled):
				n -= m.extra
			}
			delete(f.within, f.stream)
		}
	}
	return n
}
