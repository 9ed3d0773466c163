package plain

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Message makes plain text of every string in a message that somebody else wrote, and none of
// every time that is none: no JSON can be made of that, and of all that it is listed with. A new
// field of it is then as harmless as the old ones.
func Message(m proto.Message) { ofMessage(m.ProtoReflect()) }

func ofMessage(m protoreflect.Message) {
	if t, ok := m.Interface().(interface{ IsValid() bool }); ok && !t.IsValid() { // a Timestamp or Duration
		proto.Reset(m.Interface())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			ofMap(f, v.Map())
		case f.IsList():
			for i := range v.List().Len() {
				if item, changed := ofValue(f, v.List().Get(i)); changed {
					v.List().Set(i, item)
				}
			}
		default:
			if item, changed := ofValue(f, v); changed {
				m.Set(f, item)
			}
		}
		return true
	})
}

func ofMap(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if f.MapKey().Kind() == protoreflect.StringKind && Text(k.String()) != k.String() {
			m.Clear(k) // a name that cannot be shown is nobody's
		} else if item, changed := ofValue(f.MapValue(), v); changed {
			m.Set(k, item)
		}
		return true
	})
}

func ofValue(f protoreflect.FieldDescriptor, v protoreflect.Value) (protoreflect.Value, bool) {
	switch f.Kind() {
	case protoreflect.StringKind:
		s := Text(v.String())
		return protoreflect.ValueOfString(s), s != v.String()
	case protoreflect.MessageKind:
		ofMessage(v.Message())
	default: // numbers and bytes are printed as such
	}
	return v, false
}
