package decode

import (
	"math"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Limits of a message.
const (
	Times = times
	Free  = free
)

// Sum is Weigh without a bound.
func Sum(b []byte, m protoreflect.ProtoMessage) (int, error) {
	s := shapeOf(m.ProtoReflect())
	w := weighing{bytes: s.size, most: math.MaxInt}
	err := w.add(b, s, 0)
	return w.bytes, err
}
