package decode

import (
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// kind is how a field is held.
type kind uint8

const (
	unknown kind = iota // as the bytes that came
	scalar
	text // string or bytes
	message
)

// field is what one field takes, and each of its values where it has several.
type field struct {
	kind     kind
	repeated bool
	wire     protowire.Type // of a scalar
	each     int            // bytes, beside those of text and of fields within
	first    int            // bytes of a map that has anything
	of       *shape         // of a message
}

// shape is what a type of message takes.
type shape struct {
	size   int     // of one without fields
	fields []field // by number
}

func (s *shape) field(n protowire.Number) field {
	if int(n) < len(s.fields) {
		return s.fields[n]
	}
	return field{}
}

const (
	sliceGrows = 2  // an array that grew has this many times what is in it
	oneOf      = 32 // the box of a field of a oneof, or of one that may be absent
	mapHead    = 48
	mapSlots   = 8 // of the least map
)

// mapSlot is what an entry of a map takes: up to half of the slots are free, and some
// are of the table that it was moved from.
func mapSlot(key, value int) int { return (key + value + 1) * 5 / 2 }

// shapes are those of the messages that came so far and of what may be in them: types
// that there are in the program, by their name.
var shapes struct {
	sync.RWMutex
	of map[protoreflect.FullName]*shape
}

func shapeOf(m protoreflect.Message) *shape {
	name := m.Descriptor().FullName()
	shapes.RLock()
	s := shapes.of[name]
	shapes.RUnlock()
	if s != nil {
		return s
	}
	shapes.Lock()
	defer shapes.Unlock()
	if shapes.of == nil {
		shapes.of = map[protoreflect.FullName]*shape{}
	}
	return makeShape(m)
}

// makeShape makes the shape of a message and of all that may be in it, which may be one
// of its own. The caller holds the lock until all are made.
func makeShape(m protoreflect.Message) *shape {
	d := m.Descriptor()
	if s := shapes.of[d.FullName()]; s != nil {
		return s
	}
	s := &shape{size: allocated(int(reflect.TypeOf(m.Interface()).Elem().Size()) + 8)}
	shapes.of[d.FullName()] = s
	all := d.Fields()
	for i := range all.Len() {
		f := all.Get(i)
		for len(s.fields) <= int(f.Number()) {
			s.fields = append(s.fields, field{})
		}
		s.fields[f.Number()] = fieldOf(m.New(), f)
	}
	return s
}

// fieldOf is of a field f of m, which is empty.
func fieldOf(m protoreflect.Message, f protoreflect.FieldDescriptor) field {
	if f.IsMap() {
		return mapOf(m, f)
	}
	made := value(f)
	if made.kind == message {
		in := m.NewField(f)
		if f.IsList() {
			made.of = makeShape(in.List().NewElement().Message())
		} else {
			made.of = makeShape(in.Message())
		}
		made.each = made.of.size
	}
	switch {
	case f.IsList():
		made.repeated = true
		made.each += sliceGrows * width(f)
	case f.ContainingOneof() != nil, f.HasPresence() && made.kind == scalar:
		made.each += oneOf
	}
	return made
}

// mapOf is of a map, whose entries are messages on the wire alone.
func mapOf(m protoreflect.Message, f protoreflect.FieldDescriptor) field {
	key, val := value(f.MapKey()), value(f.MapValue())
	slot := mapSlot(width(f.MapKey()), width(f.MapValue()))
	made := field{kind: message, each: slot, first: mapHead + mapSlots*slot}
	if val.kind == message {
		val.of = makeShape(m.NewField(f).Map().NewValue().Message())
		made.each += val.of.size // also where an entry has no value
	}
	made.of = &shape{fields: []field{{}, key, val}}
	return made
}

// value is how a field's values are held.
func value(f protoreflect.FieldDescriptor) field {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return field{kind: message}
	case protoreflect.StringKind, protoreflect.BytesKind:
		return field{kind: text}
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return field{kind: scalar, wire: protowire.Fixed32Type}
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return field{kind: scalar, wire: protowire.Fixed64Type}
	case protoreflect.GroupKind: // of proto2: no message of ours has any
		return field{}
	}
	return field{kind: scalar, wire: protowire.VarintType}
}

// width is what a field's value takes where it stands.
func width(f protoreflect.FieldDescriptor) int {
	switch f.Kind() {
	case protoreflect.StringKind:
		return 16
	case protoreflect.BytesKind:
		return 24
	}
	return 8
}
