package decode

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds messages within messages. What Envoy says of itself has a handful.
const maxDepth = 100

var (
	// ErrTooMuch refuses a message that would take too much memory.
	ErrTooMuch   = errors.New("it has too many or too small parts for its size")
	errTooDeep   = fmt.Errorf("it has messages within messages more than %d deep", maxDepth)
	errMalformed = errors.New("it is not a protobuf message")
)

// Weigh returns how many bytes the objects take that b becomes as a message like m, or an
// error where that is out of proportion. It makes nothing of b.
func Weigh(b []byte, m protoreflect.ProtoMessage) (int, error) {
	s := shapeOf(m.ProtoReflect())
	w := weighing{bytes: s.size, most: free + times*len(b)}
	if err := w.add(b, s, 0); err != nil {
		return 0, fmt.Errorf("%s of %d bytes: %w", m.ProtoReflect().Descriptor().FullName(), len(b), err)
	}
	return w.bytes, nil
}

// weighing is one message that is gone over.
type weighing struct{ bytes, most int }

// add adds what the fields of a message take, beside the message itself.
func (w *weighing) add(b []byte, s *shape, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	lastMap := protowire.Number(0)
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		var value []byte
		f := s.field(number)
		size := 0
		if wire == protowire.BytesType {
			value, size = protowire.ConsumeBytes(b[n:])
		} else {
			size = protowire.ConsumeFieldValue(number, wire, b[n:])
		}
		if size < 0 {
			return errMalformed
		}
		switch {
		case f.kind == message && wire == protowire.BytesType:
			w.bytes += f.each
			if f.first > 0 && number != lastMap { // a map that may be new
				w.bytes += f.first
				lastMap = number
			}
			if w.bytes <= w.most {
				if err := w.add(value, f.of, depth+1); err != nil {
					return err
				}
			}
		case f.kind == text && wire == protowire.BytesType:
			w.bytes += f.each + allocated(len(value))
		case f.kind == scalar && wire == f.wire:
			w.bytes += f.each
		case f.kind == scalar && wire == protowire.BytesType && f.repeated:
			w.bytes += f.each * packed(value, f.wire)
		default: // kept as it is
			w.bytes += 2 * (n + size)
		}
		if w.bytes > w.most {
			return ErrTooMuch
		}
		b = b[n+size:]
	}
	return nil
}

// packed is how many scalars there are in b.
func packed(b []byte, wire protowire.Type) int {
	switch wire {
	case protowire.Fixed32Type:
		return len(b) / 4
	case protowire.Fixed64Type:
		return len(b) / 8
	}
	n := 0
	for _, c := range b {
		if c < 0x80 { // the last of a varint
			n++
		}
	}
	return n
}

// allocated is what Go takes for n bytes, at most: sizes come in classes.
func allocated(n int) int {
	if n <= 8 {
		return (n + 7) &^ 7
	}
	if n <= 256 {
		return (n + 15) &^ 15
	}
	return n + n/4 + 16
}
