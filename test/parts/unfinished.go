package parts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Unfinished is a gRPC client that never ends what it says: on each of so many calls
// of a method it sends a message of that length but for its last byte, in frames of
// at most piece bytes. It goes on as the server's windows let it, until the connection
// is closed or nothing has moved for a second, and returns what it sent, in bytes of
// messages. Is the connection still open, err is nil. Where there are headers, a call
// with an empty message comes first, and is waited for.
func Unfinished(conn net.Conn, method string, calls, length, piece int, headers ...[2]string) (sent int, err error) {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0, err
	}
	framer := http2.NewFramer(conn, conn)
	u := &unfinished{framer: framer, window: 65535, initial: 65535, windows: map[uint32]int{}, left: map[uint32]int{}}
	err = framer.WriteSettings()
	var header bytes.Buffer
	enc := hpack.NewEncoder(&header)
	begin := func(id uint32) {
		header.Reset()
		for _, f := range append([][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}}, headers...) {
			err = errors.Join(err, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
		}
		err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header.Bytes(), EndHeaders: true}))
	}
	if len(headers) > 0 { // a first call that is whole, and empty: it shows whose they are
		begin(1)
		err = errors.Join(err, framer.WriteData(1, true, make([]byte, 5)), u.until(1))
	}
	for i := range calls {
		id := uint32(2*i + 3)
		begin(id)
		u.windows[id], u.left[id] = u.initial, 5+length-1
	}
	u.length = length
	for err == nil {
		if err = u.push(piece); err != nil {
			break
		}
		if err = conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			break
		}
		var frame http2.Frame
		frame, err = framer.ReadFrame()
		if isTimeout(err) {
			return u.sent, nil
		}
		if err == nil {
			err = u.read(frame)
		}
	}
	return u.sent, err
}

// until reads to the end of a call.
func (u *unfinished) until(id uint32) error {
	for {
		f, err := u.framer.ReadFrame()
		if err == nil {
			err = u.read(f)
		}
		if h, ok := f.(*http2.HeadersFrame); err != nil || ok && h.StreamID == id && h.StreamEnded() {
			return err
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

type unfinished struct {
	framer          *http2.Framer
	window, initial int
	windows, left   map[uint32]int // by stream
	length, sent    int
}

// push sends what the windows allow.
func (u *unfinished) push(piece int) error {
	for id := range u.left {
		for u.left[id] > 0 && u.windows[id] > 0 && u.window > 0 {
			n := min(piece, u.left[id], u.windows[id], u.window, 16384)
			b := make([]byte, n)
			if u.left[id] == 5+u.length-1 { // the first
				var prefix [5]byte
				binary.BigEndian.PutUint32(prefix[1:], uint32(u.length)) //nolint:gosec // a few MiB
				copy(b, prefix[:])
			}
			if err := u.framer.WriteData(id, false, b); err != nil {
				return err
			}
			u.left[id] -= n
			u.windows[id] -= n
			u.window -= n
			u.sent += n
		}
	}
	return nil
}

func (u *unfinished) read(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			for id := range u.windows {
				u.windows[id] += int(v) - u.initial
			}
			u.initial = int(v)
		}
		return u.framer.WriteSettingsAck()
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			u.window += int(f.Increment)
		} else {
			u.windows[f.StreamID] += int(f.Increment)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return u.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		delete(u.left, f.StreamID)
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			delete(u.left, f.StreamID)
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("go away: %s", f.ErrCode)
	}
	return nil
}
